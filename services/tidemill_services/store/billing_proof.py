"""Reads the books for `tidemill admin verify-billing`: in one snapshot, and in pieces, since rows may be millions."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, and_, exists, or_, select

from tidemill_services.domain.block_proof import BlockProof, KeptBlock, Unreadable
from tidemill_services.domain.errors import TidemillError
from tidemill_services.domain.kept_proof import KeptHash, KeptRow, kept_block_misfits, kept_row_misfits
from tidemill_services.domain.ledger import Balance, EntryKind, LedgerEntry
from tidemill_services.domain.ledger_block import LedgerBlock
from tidemill_services.domain.ledger_proof import Sums, balance_misfits, row_misfits, total_misfits
from tidemill_services.domain.misfit import Misfit, MisfitKind
from tidemill_services.domain.session import Session
from tidemill_services.domain.session_billing import subject_of
from tidemill_services.domain.session_proof import Holds, hold_misfits, orphan, session_misfits
from tidemill_services.domain.token_billing import token_charge_misfit
from tidemill_services.store import credit_slices, ledger_seal, prices, session_rows
from tidemill_services.store.database import Transaction
from tidemill_services.store.ledger import entry_of
from tidemill_services.store.tables import balances, ledger_blocks, ledger_entries, sessions

_PIECE = 1_000  # rows that are read at once
_PAGE = 200  # sessions, whose rows are then read together
_KINDS = frozenset(kind.value for kind in EntryKind)
_TYPES = {
    table: [column.type.python_type for column in table.columns] for table in (ledger_entries, ledger_blocks, sessions)
}


@dataclass(slots=True)
class BillingProof:
    """What was looked at, and the first thing of each kind that does not fit, in the order in which they were found."""

    misfits: dict[MisfitKind, Misfit] = field(default_factory=dict)
    num_rows: int = 0
    num_sealed_rows: int = 0
    num_blocks: int = 0
    num_accounts: int = 0
    num_sessions: int = 0
    num_kept: int = 0  # rows and blocks that somebody kept
    last_block: KeptBlock | None = None

    def note(self, misfits: Iterable[Misfit]) -> None:
        """Take what does not fit."""
        for misfit in misfits:
            self.misfits.setdefault(misfit.kind, misfit)


def prove_billing(
    connection: Connection, kept_rows: Sequence[KeptRow] = (), kept_hashes: Sequence[KeptHash] = ()
) -> BillingProof:
    """Compare all that the database says of money with itself, and with what somebody kept of it."""
    proof, sums, tx = BillingProof(num_kept=len(kept_rows) + len(kept_hashes)), Sums(), Transaction(connection, 0)
    blocks = BlockProof(_blocks(connection))
    for kept_row in kept_rows:
        proof.note(kept_row_misfits(kept_row, _find_row(connection, kept_row.ledger_sequence)))
    for kept_hash in kept_hashes:
        proof.note(kept_block_misfits(kept_hash, _find_block(connection, kept_hash.number)))
    proof.note(row_misfits(_rows(connection), blocks, sums))
    proof.note(balance_misfits(_balances(connection), sums))
    proof.note(total_misfits(ledger_seal.read_totals(tx)[1], sums))
    if MisfitKind.ROW_UNREADABLE not in proof.misfits:
        proof.note(_session_misfits(tx, proof))
        proof.note(_token_misfits(tx))
    proof.num_rows, proof.num_sealed_rows = sums.num_rows, sums.num_sealed_rows
    proof.num_accounts, proof.num_blocks, proof.last_block = len(sums.balances), blocks.num_blocks, blocks.last
    return proof


def _session_misfits(tx: Transaction, proof: BillingProof) -> Iterator[Misfit]:
    holds = Holds()
    holds.by_account.update(credit_slices.held_by_account(tx))
    after = ""
    in_order = select(sessions).order_by(sessions.c.session_id).limit(_PAGE)
    while rows := tx.connection.execute(in_order.where(sessions.c.session_id > after)).all():
        proof.num_sessions += len(rows)
        after = rows[-1].session_id
        page = [_session(row) for row in rows]
        yield from (each for each in page if isinstance(each, Misfit))
        read = {subject_of(each): each for each in page if isinstance(each, Session)}
        yield from _page_misfits(tx.connection, read, holds)
    if MisfitKind.SESSION_UNREADABLE not in proof.misfits:
        yield from hold_misfits(_balances(tx.connection), holds)
    is_there = exists().where(ledger_entries.c.subject == "sessions/" + sessions.c.session_id)
    is_of_one = ledger_entries.c.kind == EntryKind.SESSION_CHARGE.value
    names_one = or_(ledger_entries.c.subject.startswith("sessions/"), is_of_one)
    query = select(ledger_entries).where(and_(names_one, ~is_there)).order_by(ledger_entries.c.ledger_sequence)
    for row in tx.connection.execute(query.limit(1)):
        yield orphan(entry_of(row))


def _token_misfits(tx: Transaction) -> Iterator[Misfit]:
    """Compare each answer's charge with the price that it names."""
    by_revision = prices.by_revision(tx)
    is_charge = ledger_entries.c.kind == EntryKind.TOKEN_CHARGE.value
    query = select(ledger_entries).where(is_charge).order_by(ledger_entries.c.ledger_sequence)
    for row in map(entry_of, _read(tx.connection, query)):
        what = token_charge_misfit(row, by_revision.get(row.posting.used.price_revision))
        if what:
            yield Misfit(
                MisfitKind.TOKEN_CHARGE,
                f"Row {row.ledger_sequence} (accounts/{row.account_id}) {what}.",
                account=f"accounts/{row.account_id}",
                account_sequence=row.account_sequence,
                ledger_sequence=row.ledger_sequence,
            )


def _page_misfits(connection: Connection, page: dict[str, Session], holds: Holds) -> Iterator[Misfit]:
    query = select(ledger_entries).where(ledger_entries.c.subject.in_(list(page)))
    rows = _read(connection, query.order_by(ledger_entries.c.subject, ledger_entries.c.ledger_sequence))
    for subject, of_session in groupby(map(entry_of, rows), key=lambda entry: entry.posting.subject):
        yield from session_misfits(page.pop(subject), of_session, holds)
    for session in page.values():
        yield from session_misfits(session, (), holds)


def _session(row: Row[Any]) -> Session | Misfit:
    """A row's session, or what keeps it from being one."""
    name = f"sessions/{row.session_id}"
    sentence = _unreadable(row, sessions, "Session")
    if not sentence:
        try:
            return session_rows.session_of(row)
        except (TidemillError, TypeError, ValueError) as error:
            sentence = f"{name} cannot be read: {error}"
    return Misfit(MisfitKind.SESSION_UNREADABLE, sentence, session=name)


def _rows(connection: Connection) -> Iterator[LedgerEntry | Unreadable]:
    for row in _read(connection, select(ledger_entries).order_by(ledger_entries.c.ledger_sequence)):
        sentence = _unreadable_row(row)
        yield Unreadable(_number(row[0]), sentence) if sentence else entry_of(row)


def _blocks(connection: Connection) -> Iterator[KeptBlock | Unreadable]:
    for row in _read(connection, select(ledger_blocks).order_by(ledger_blocks.c.number)):
        sentence = _unreadable(row, ledger_blocks, "Block")
        yield Unreadable(_number(row[0]), sentence) if sentence else KeptBlock(_block(row), row.block_hash)


def _find_row(connection: Connection, ledger_sequence: int) -> LedgerEntry | None:
    query = select(ledger_entries).where(ledger_entries.c.ledger_sequence == ledger_sequence)
    row = connection.execute(query).one_or_none()
    return None if row is None or _unreadable_row(row) else entry_of(row)


def _find_block(connection: Connection, number: int) -> LedgerBlock | None:
    row = connection.execute(select(ledger_blocks).where(ledger_blocks.c.number == number)).one_or_none()
    return None if row is None or _unreadable(row, ledger_blocks, "Block") else _block(row)


def _balances(connection: Connection) -> Iterator[tuple[str, Balance]]:
    for row in _read(connection, select(balances).order_by(balances.c.account_id)):
        yield row.account_id, Balance(row.balance_microcredits, row.held_microcredits, row.account_sequence)


def _read(connection: Connection, query: Select[Any]) -> Iterator[Row[Any]]:
    yield from connection.execute(query, execution_options={"yield_per": _PIECE})


def _block(row: Row[Any]) -> LedgerBlock:
    return LedgerBlock(**{each.name: row._mapping[each.name] for each in fields(LedgerBlock)})  # noqa: SLF001


def _unreadable_row(row: Row[Any]) -> str:
    sentence = _unreadable(row, ledger_entries, "Row")
    if sentence or row.kind in _KINDS:
        return sentence
    return f"Row {row.ledger_sequence} cannot be read: {row.kind!r} is no kind."


def _unreadable(row: Row[Any], table: Table, what: str) -> str:
    """The sentence of a row whose columns hold what their types do not: SQLite takes anything."""
    types = _TYPES[table]
    if [type(value) for value in row] == types:
        return ""
    for column, value, wanted in zip(table.columns, row, types, strict=True):
        if type(value) is not wanted and not (value is None and column.nullable):
            return f"{what} {row[0]!r} cannot be read: its {column.name} is {value!r}."
    return ""


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
