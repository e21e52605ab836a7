"""Whether a receipt holds, checked with nothing but the receipt; docs/receipts.md says the same for other programs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise

from tidemill.billing_results import LedgerBlock
from tidemill.merkle import HASH_BYTES, leaf_hash, root_of_path
from tidemill.receipt import Receipt
from tidemill.sealed_row import NotARowError, SealedRow, canonical_json
from tidemill.shown import shown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of a check."""

    problem: str
    """The first thing that does not fit, in a sentence; empty when everything fits."""
    checks: tuple[str, ...]
    """What was checked and fits, a sentence each."""

    @property
    def ok(self) -> bool:
        """Whether everything fits."""
        return not self.problem


class _MisfitError(Exception):
    """Something does not fit; `str(error)` is a sentence."""


def verify_receipt(receipt: Receipt) -> Verification:
    """Check a receipt without any server: that its rows stand in sealed blocks, and that they add up.

    It shows that nothing in it was changed since it was sealed. That the blocks are those of the platform, a look at
    them there shows (`client.accounts.ledger_block`).
    """
    checks: list[str] = []
    try:
        _check(receipt, checks.append)
    except _MisfitError as misfit:
        return Verification(str(misfit), tuple(checks))
    return Verification("", tuple(checks))


def _check(receipt: Receipt, say: Callable[[str], None]) -> None:
    """Says what fits, check by check. Raises _MisfitError."""
    _check_blocks(receipt.blocks)
    say(f"{_count(receipt.blocks, 'block')} of the ledger: each has the hash of its contents, neighbours are linked.")
    rows = _rows_in_blocks(receipt)
    say(f"{_count(rows, 'row')}: each leads to the root of its block, so that it stands there as it was sealed.")
    for row in rows:
        _check_owner(row, receipt)
    say(f"All are of {shown(receipt.subject)} and of {shown(receipt.account)}.")
    for row in rows:
        _need(
            0 <= row.held_microcredits <= row.balance_microcredits,
            f"Row {row.account_sequence} of the account leaves less than nothing, or holds more than is there.",
        )
    for before, row in pairwise(rows):
        _check_neighbours(before, row)
    say("They stand in the account's order, where one follows the other its balance does, and none is below zero.")
    _check_sums(rows, receipt)
    say(
        f"They add up: {receipt.billed_seconds} seconds at the price that they name, "
        f"{receipt.cost_microcredits} microcredits in all."
    )
    say(_check_holds(rows, receipt))


def _check_blocks(blocks: Sequence[LedgerBlock]) -> None:
    for block in blocks:
        _check_block(block)
    for before, block in pairwise(blocks):
        _need(before.number < block.number, f"Block {block.number} stands after block {before.number}.")
        follows = before.number + 1 == block.number
        _need(
            block.first_sequence > before.last_sequence
            and (not follows or block.first_sequence == before.last_sequence + 1),
            f"The rows of block {block.number} do not follow those of block {before.number}.",
        )
        _need(
            not follows or block.previous_hash == before.block_hash,
            f"Block {block.number} is not linked to block {before.number}: it names another hash.",
        )


def _check_block(block: LedgerBlock) -> None:
    name = f"Block {block.number}"
    _need(block.number >= 1 and 1 <= block.first_sequence <= block.last_sequence, f"{name} has no rows.")
    for found in (block.merkle_root, block.previous_hash, block.block_hash):
        _need(len(found) == HASH_BYTES, f"A hash of block {block.number} does not have {HASH_BYTES} bytes.")
    if block.number == 1:
        _need(block.first_sequence == 1 and not any(block.previous_hash), f"{name} is the first, but has one before.")
    if block.seal_time is None:
        raise _MisfitError(f"{name} does not say when it was sealed.")
    sealed = {
        "first_sequence": block.first_sequence,
        "last_sequence": block.last_sequence,
        "merkle_root": block.merkle_root.hex(),
        "number": block.number,
        "previous_hash": block.previous_hash.hex(),
        "seal_ms": (block.seal_time - _EPOCH) // _MILLISECOND,
    }
    found = sha256(canonical_json(sealed).encode("ascii")).digest()
    _need(found == block.block_hash, f"{name} was changed: its contents have another hash.")


def _rows_in_blocks(receipt: Receipt) -> list[SealedRow]:
    """The rows, each of which stands in its block."""
    blocks = {block.number: block for block in receipt.blocks}
    rows = []
    for place, entry in enumerate(receipt.entries, start=1):
        try:
            row = SealedRow.from_json(entry.row)
        except NotARowError as error:
            raise _MisfitError(f"Row {place} is none: it {error}.") from None
        block = blocks.get(entry.block_number)
        if block is None:
            raise _MisfitError(f"The block of row {place} is missing: {entry.block_number}.")
        root = root_of_path(
            leaf_hash(entry.row.encode("ascii")),
            row.ledger_sequence - block.first_sequence,
            block.last_sequence - block.first_sequence + 1,
            entry.merkle_path,
        )
        _need(root == block.merkle_root, f"Row {place} was changed, or never stood in block {block.number}.")
        rows.append(row)
    return rows


def _check_owner(row: SealedRow, receipt: Receipt) -> None:
    for name, found, wanted in (
        ("account", row.account, receipt.account),
        ("session", row.subject, receipt.subject),
    ):
        _need(
            found == wanted,
            f"Row {row.account_sequence} of the account is of another {name}: "
            f"{shown(found)}, and the receipt of {shown(wanted)}.",
        )


def _check_neighbours(before: SealedRow, row: SealedRow) -> None:
    _need(
        before.account_sequence < row.account_sequence,
        f"Row {row.account_sequence} of the account stands after row {before.account_sequence}.",
    )
    if before.account_sequence + 1 == row.account_sequence:
        _need(
            before.balance_microcredits + row.amount_microcredits == row.balance_microcredits
            and before.held_microcredits + row.hold_microcredits == row.held_microcredits,
            f"The balance of row {row.account_sequence} of the account does not follow from the row before.",
        )


def _check_sums(rows: Sequence[SealedRow], receipt: Receipt) -> None:
    for row in rows:
        is_of_time = row.kind == "SESSION_CHARGE" or (row.kind == "REFUND" and row.billed_seconds != 0)
        _need(
            not is_of_time or row.amount_microcredits == -row.billed_seconds * row.price_microcredits_per_second,
            f"Row {row.account_sequence} of the account charges {-row.amount_microcredits} microcredits for "
            f"{row.billed_seconds} seconds at {row.price_microcredits_per_second}.",
        )
    for what, found, said in (
        ("microcredits", -sum(row.amount_microcredits for row in rows), receipt.cost_microcredits),
        ("seconds", sum(row.billed_seconds for row in rows), receipt.billed_seconds),
    ):
        _need(found == said, f"The rows add up to {found} {what}, and the receipt says {said}.")


def _check_holds(rows: Sequence[SealedRow], receipt: Receipt) -> str:
    held = 0
    for row in rows:
        held += row.hold_microcredits
        _need(held >= 0, f"Row {row.account_sequence} of the account releases more than was held for the session.")
    if not receipt.final:
        return f"The session goes on: {held} microcredits are held for it."
    _need(held == 0, f"The receipt is final, and {held} microcredits are still held for the session.")
    return "Nothing is held for the session any more."


def _need(fits: bool, otherwise: str) -> None:
    if not fits:
        raise _MisfitError(otherwise)


def _count(found: Sequence[object], what: str) -> str:
    return f"1 {what}" if len(found) == 1 else f"{len(found)} {what}s"
