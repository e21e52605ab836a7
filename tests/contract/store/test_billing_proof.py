"""What `tidemill admin verify-billing` finds, on both databases, after somebody wrote into the tables."""

import dataclasses

import pytest
from sqlalchemy import select, text, update

from tests.contract.store.books import assert_proven, make_books, prove, prove_tampered
from tests.contract.store.conftest import Customer
from tidemill_services.domain import merkle
from tidemill_services.domain.kept_proof import KeptHash, KeptRow
from tidemill_services.domain.ledger import Contra, EntryKind, Posting, canonical_row
from tidemill_services.domain.ledger_block import block_hash
from tidemill_services.domain.misfit import MisfitKind
from tidemill_services.store import ledger, ledger_seal, receipts
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.tables import ledger_blocks, ledger_entries


async def test_books_that_nobody_touched_fit(customer: Customer):
    await make_books(customer)
    proof = await assert_proven(customer.database)
    assert (proof.num_blocks, proof.num_accounts, proof.num_sessions) == (3, 2, 2)
    assert proof.num_rows > proof.num_sealed_rows > 10
    assert proof.last_block is not None
    assert proof.last_block.block.number == 3


async def test_an_empty_ledger_fits(database: Database):
    assert (await assert_proven(database)).num_rows == 0


def in_block(block: int, offset: int = 1) -> str:
    return f"(SELECT first_sequence + {offset} FROM ledger_blocks WHERE number = {block})"


def moved(at: str, to: str) -> str:
    return f"UPDATE ledger_entries SET ledger_sequence = {to} WHERE ledger_sequence = {at}"


def changed(column: str, value: str, where: str) -> str:
    return f"UPDATE ledger_entries SET {column} = {value} WHERE ledger_sequence = {where}"


FIRST_CHARGE = "(SELECT min(ledger_sequence) FROM ledger_entries WHERE kind = 'SESSION_CHARGE' AND account_id = '{}')"
LAST_ROW = "(SELECT max(ledger_sequence) FROM ledger_entries)"
LAST_OF_BLOCK_3 = "(SELECT last_sequence FROM ledger_blocks WHERE number = 3)"
TAMPERINGS = {
    "a byte of a text": ([changed("reason", "'X'", in_block(2))], "BLOCK_ROWS", "Block 2"),
    "a time": ([changed("commit_ms", "commit_ms + 1", in_block(3, 0))], "BLOCK_ROWS", "Block 3"),
    "an amount": (
        [changed("amount_microcredits", "amount_microcredits + 1", FIRST_CHARGE.format("first"))],
        "ROW_BALANCE",
        "block 2",
    ),
    "a kind that is none": ([changed("kind", "'GRANS'", in_block(2))], "ROW_UNREADABLE", "'GRANS'"),
    "a row dropped": ([f"DELETE FROM ledger_entries WHERE ledger_sequence = {in_block(2)}"], "ROW_MISSING", "Row 3"),
    "the last row of a block dropped": (
        [f"DELETE FROM ledger_entries WHERE ledger_sequence = {LAST_OF_BLOCK_3}"],
        "ROW_MISSING",
        "block 3 sealed it",
    ),
    "the tail dropped": (
        [f"DELETE FROM ledger_entries WHERE ledger_sequence > {in_block(3, 0)}"],
        "ROW_MISSING",
        "block 3 sealed it",
    ),
    "the last row dropped, which is not sealed": (
        [f"DELETE FROM ledger_entries WHERE ledger_sequence = {LAST_ROW}"],
        "BALANCE",
        "accounts/second",
    ),
    "two rows of an account swapped": (
        [moved(in_block(2, 3), "-1"), moved(in_block(2, 4), in_block(2, 3)), moved("-1", in_block(2, 4))],
        "ROW_ORDER",
        "block 2",
    ),
    "two rows of two accounts swapped": (
        [moved(in_block(2, 1), "-1"), moved(in_block(2, 2), in_block(2, 1)), moved("-1", in_block(2, 2))],
        "BLOCK_ROWS",
        "Block 2",
    ),
    "a block's time": (["UPDATE ledger_blocks SET seal_ms = seal_ms + 1 WHERE number = 2"], "BLOCK_HASH", "Block 2"),
    "a block dropped": (["DELETE FROM ledger_blocks WHERE number = 2"], "BLOCK_CHAIN", "Block 3"),
    "the last block dropped": (["DELETE FROM ledger_blocks WHERE number = 3"], "TOTAL", "accounts/"),
    "a balance": (
        ["UPDATE balances SET balance_microcredits = balance_microcredits + 1 WHERE account_id = 'first'"],
        "BALANCE",
        "accounts/first",
    ),
    "a total": (
        ["UPDATE ledger_totals SET billed_seconds = billed_seconds + 1 WHERE account_id = 'first'"],
        "TOTAL",
        " seconds; the sealed rows add up to ",
    ),
    "a session's state": (
        ["UPDATE sessions SET state = 'ASLEEP' WHERE account_id = 'second'"],
        "SESSION_UNREADABLE",
        "'ASLEEP'",
    ),
    "a session's labels": (["UPDATE sessions SET labels = '{'"], "SESSION_UNREADABLE", "cannot be read"),
    "a session's limit": (["UPDATE sessions SET idle_timeout_ms = 1"], "SESSION_UNREADABLE", "limits.idle_timeout"),
    "what is settled": (
        ["UPDATE sessions SET settled_ms = settled_ms + 1000 WHERE account_id = 'second'"],
        "SESSION_SECONDS",
        "sessions/",
    ),
    "what is billed": (
        ["UPDATE sessions SET billed_ms = billed_ms + 1 WHERE account_id = 'first'"],
        "SESSION_SECONDS",
        "sessions/",
    ),
    "an end": (["UPDATE sessions SET end_ms = end_ms - 1 WHERE account_id = 'first'"], "SESSION_TIME", "sessions/"),
    "what is held": (
        ["UPDATE sessions SET held_microcredits = held_microcredits + 1 WHERE account_id = 'second'"],
        "SESSION_HOLD",
        "sessions/",
    ),
    "a session's price": (
        ["UPDATE sessions SET price_microcredits_per_second = 1 WHERE account_id = 'first'"],
        "SESSION_ROW",
        "sessions/",
    ),
    "a session dropped": (
        ["DELETE FROM session_holders", "DELETE FROM sessions WHERE account_id = 'second'"],
        "SESSION_HOLD",
        "accounts/second",
    ),
}


@pytest.mark.rule("L8")
async def test_what_was_done_to_the_tables_is_named(customer: Customer):
    await make_books(customer)
    for what, (statements, kind, where) in TAMPERINGS.items():
        first = next(iter((await prove_tampered(customer.database, *statements)).misfits.values()), None)
        assert first is not None, what
        assert (first.kind, where in first.sentence) == (MisfitKind(kind), True), f"{what}: {first}"
    await assert_proven(customer.database)


async def test_the_first_row_that_does_not_fit_is_named_exactly(customer: Customer):
    await make_books(customer)
    row = (await customer.database.read(ledger.list_entries, "first")).entries[3]
    change = changed("balance_microcredits", "balance_microcredits + 1", str(row.ledger_sequence))
    misfits = (await prove_tampered(customer.database, change)).misfits
    found = misfits[MisfitKind.ROW_BALANCE]
    assert (found.account, found.account_sequence, found.ledger_sequence, found.block, found.session) == (
        "accounts/first",
        4,
        row.ledger_sequence,
        2,
        row.posting.subject,
    )
    assert next(iter(misfits.values())) is found


async def test_columns_of_another_type_are_named_and_break_nothing(customer: Customer, database_url: str):
    if not database_url.startswith("sqlite"):
        pytest.skip("Postgres lets nobody write them")
    await make_books(customer)
    misfits = (
        await prove_tampered(
            customer.database,
            changed("amount_microcredits", "'much'", in_block(2)),
            "UPDATE ledger_blocks SET merkle_root = 'text' WHERE number = 3",
        )
    ).misfits
    assert "'much'" in misfits[MisfitKind.ROW_UNREADABLE].sentence
    assert misfits[MisfitKind.BLOCK_UNREADABLE].block == 3
    (misfit,) = (await prove_tampered(customer.database, "UPDATE sessions SET settled_ms = 'long'")).misfits.values()
    assert (misfit.kind, "its settled_ms is 'long'" in misfit.sentence) == (MisfitKind.SESSION_UNREADABLE, True)


def rewrite_the_tail(tx: Transaction) -> None:
    """Take a second off the last charge of block 2, and make all that follows fit, as a careful forger would."""
    charge = select(ledger_entries).where(
        ledger_entries.c.kind == "SESSION_CHARGE", ledger_entries.c.account_id == "first"
    )
    row = tx.connection.execute(charge.order_by(ledger_entries.c.ledger_sequence.desc()).limit(1)).one()
    price = row.price_microcredits_per_second
    is_later = (
        ledger_entries.c.account_id == row.account_id,
        ledger_entries.c.account_sequence >= row.account_sequence,
    )
    tx.connection.execute(
        update(ledger_entries)
        .where(ledger_entries.c.ledger_sequence == row.ledger_sequence)
        .values(
            billed_seconds=row.billed_seconds - 1,
            amount_microcredits=row.amount_microcredits + price,
            hold_microcredits=row.hold_microcredits + price,
            held_microcredits=row.held_microcredits + price,
            balance_microcredits=row.balance_microcredits + price,
        )
    )
    later = ledger_entries.c.ledger_sequence > row.ledger_sequence
    tx.connection.execute(
        update(ledger_entries)
        .where(*is_later, later, ledger_entries.c.kind == "RELEASE")
        .values(hold_microcredits=ledger_entries.c.hold_microcredits - price)
    )
    tx.connection.execute(
        update(ledger_entries)
        .where(*is_later, later)
        .values(balance_microcredits=ledger_entries.c.balance_microcredits + price)
    )
    taken, of_first = f"hold_microcredits = hold_microcredits - {price}", "WHERE account_id = 'first'"
    added = ", ".join(f"{name} = {name} + {price}" for name in ("amount_microcredits", "hold_microcredits"))
    for statement in (
        f"UPDATE balances SET balance_microcredits = balance_microcredits + {price} {of_first}",
        f"UPDATE sessions SET settled_ms = settled_ms - 1000, billed_ms = billed_ms - 1000 {of_first}",
        f"UPDATE ledger_totals SET {taken} {of_first} AND kind = 'RELEASE'",
        f"UPDATE ledger_totals SET {added}, billed_seconds = billed_seconds - 1 {of_first} AND kind = 'SESSION_CHARGE'",
    ):
        tx.connection.execute(text(statement))
    forge_blocks(tx)


def forge_blocks(tx: Transaction) -> None:
    """Seal all blocks anew over the rows as they are."""
    previous_hash = bytes(32)
    for number in range(1, ledger_seal.get_block(tx, 0).number + 1):
        block = ledger_seal.get_block(tx, number)
        of_block = ledger_entries.c.ledger_sequence.between(block.first_sequence, block.last_sequence)
        rows = tx.connection.execute(select(ledger_entries).where(of_block).order_by(ledger_entries.c.ledger_sequence))
        leaves = [merkle.leaf_hash(canonical_row(ledger.entry_of(row))) for row in rows]
        forged = dataclasses.replace(block, merkle_root=merkle.root(leaves), previous_hash=previous_hash)
        previous_hash = block_hash(forged)
        tx.connection.execute(
            update(ledger_blocks)
            .where(ledger_blocks.c.number == number)
            .values(merkle_root=forged.merkle_root, previous_hash=forged.previous_hash, block_hash=previous_hash)
        )


@pytest.mark.rule("L8")
async def test_a_tail_that_was_rewritten_to_fit_is_named_by_a_receipt_that_somebody_kept(customer: Customer):
    session, _ = await make_books(customer)
    receipt = await customer.database.read(receipts.make_receipt, "first", session.session_id)
    rows = [KeptRow(each.entry.ledger_sequence, each.row, "a receipt") for each in receipt.entries]
    hashes = [KeptHash(block.number, block_hash(block), "a receipt") for block in receipt.blocks]
    assert not (await prove(customer.database, kept_rows=rows, kept_hashes=hashes)).misfits
    assert not (await prove_tampered(customer.database, rewrite_the_tail)).misfits  # it fits itself
    misfits = (await prove_tampered(customer.database, rewrite_the_tail, kept_rows=rows, kept_hashes=hashes)).misfits
    assert set(misfits) == {MisfitKind.KEPT_ROW, MisfitKind.KEPT_BLOCK}
    charge = next(each.entry for each in reversed(receipt.entries) if each.entry.posting.kind == "SESSION_CHARGE")
    assert misfits[MisfitKind.KEPT_ROW].ledger_sequence == charge.ledger_sequence
    only_hash = (await prove_tampered(customer.database, rewrite_the_tail, kept_hashes=hashes[-1:])).misfits
    assert only_hash[MisfitKind.KEPT_BLOCK].block == 3


@pytest.mark.rule("L8")
async def test_a_tail_that_was_cut_off_is_named_by_a_hash_that_somebody_kept(customer: Customer):
    await make_books(customer)
    kept = KeptHash(3, block_hash(await customer.database.read(ledger_seal.get_block, 3)), "a note")
    cut_off = "DELETE FROM ledger_blocks WHERE number = 3"
    misfits = (await prove_tampered(customer.database, cut_off, kept_hashes=[kept])).misfits
    assert "Block 3 is missing" in misfits[MisfitKind.KEPT_BLOCK].sentence


async def test_a_row_of_a_session_that_never_was_is_named(customer: Customer):
    await make_books(customer)

    def add(tx: Transaction) -> None:
        posting = Posting(EntryKind.HOLD, Contra.HOLDS, hold_microcredits=1, subject="sessions/none")
        ledger.post(tx, "second", [posting])

    misfits = (await prove_tampered(customer.database, add)).misfits
    assert set(misfits) == {MisfitKind.SESSION_HOLD, MisfitKind.SESSION_ROW}
    assert "sessions/none" in misfits[MisfitKind.SESSION_ROW].sentence
