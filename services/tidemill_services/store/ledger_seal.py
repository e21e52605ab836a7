"""Units of work that seal the ledger's rows into blocks, and count the totals of what is sealed."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import Row, Select, func, insert, select, text

from tidemill_services.domain import merkle
from tidemill_services.domain.errors import LedgerBlockNotFoundError
from tidemill_services.domain.ledger import canonical_row
from tidemill_services.domain.ledger_block import NO_BLOCK_HASH, LedgerBlock, block_hash
from tidemill_services.domain.ledger_totals import Totals, TotalsKey, totals_of
from tidemill_services.store.database import Transaction
from tidemill_services.store.leader import leads
from tidemill_services.store.ledger import entry_of
from tidemill_services.store.prepared import Prepared
from tidemill_services.store.tables import ledger_blocks, ledger_entries, ledger_totals

MAX_BLOCK_ROWS = 1_024  # sealed in one unit, which keeps other writers waiting


def seal(tx: Transaction, process_id: str, epoch: int) -> bool:
    """Seal rows that are not sealed yet, as the leader of that epoch; whether there are more."""
    last = last_block(tx)
    first_sequence = 1 if last is None else last.last_sequence + 1
    query = select(ledger_entries).where(ledger_entries.c.ledger_sequence >= first_sequence)
    rows = tx.connection.execute(query.order_by(ledger_entries.c.ledger_sequence).limit(MAX_BLOCK_ROWS)).all()
    if not rows or not leads(tx, process_id, epoch):
        return False
    entries = [entry_of(row) for row in rows]
    block = LedgerBlock(
        number=1 if last is None else last.number + 1,
        first_sequence=first_sequence,
        last_sequence=entries[-1].ledger_sequence,
        merkle_root=merkle.root([merkle.leaf_hash(canonical_row(entry)) for entry in entries]),
        previous_hash=NO_BLOCK_HASH if last is None else block_hash(last),
        seal_ms=tx.now_ms,
    )
    values = {each.name: getattr(block, each.name) for each in fields(block)}
    tx.connection.execute(insert(ledger_blocks).values(**values, block_hash=block_hash(block)))
    _add_totals(tx, totals_of(entries))
    return len(rows) == MAX_BLOCK_ROWS


def has_unsealed(tx: Transaction) -> bool:
    """Whether rows wait for their block."""
    last = last_block(tx)
    query = select(ledger_entries.c.ledger_sequence).where(
        ledger_entries.c.ledger_sequence > (0 if last is None else last.last_sequence)
    )
    return tx.connection.execute(query.limit(1)).first() is not None


def count_unsealed(tx: Transaction) -> int:
    """Return how many rows wait for their block; their numbers have no gaps."""
    newest = tx.connection.execute(select(func.max(ledger_entries.c.ledger_sequence))).scalar() or 0
    last = last_block(tx)
    return newest - (0 if last is None else last.last_sequence)


def last_block(tx: Transaction) -> LedgerBlock | None:
    """Return the newest block."""
    return _find_block(tx, select(ledger_blocks).order_by(ledger_blocks.c.number.desc()).limit(1))


def get_block(tx: Transaction, number: int) -> LedgerBlock:
    """Return a block; 0 means the newest. Raises LedgerBlockNotFoundError."""
    query = select(ledger_blocks).where(ledger_blocks.c.number == number)
    found = last_block(tx) if number == 0 else _find_block(tx, query)
    if found is None:
        raise LedgerBlockNotFoundError
    return found


def read_totals(tx: Transaction) -> tuple[int, Mapping[TotalsKey, Totals]]:
    """Return the number of the newest block, 0 before the first, and the sums over all rows until its end."""
    last = last_block(tx)
    rows = tx.connection.execute(select(ledger_totals))
    return 0 if last is None else last.number, {(row.account_id, row.model, row.kind): _totals(row) for row in rows}


def _add_totals(tx: Transaction, sums: Mapping[TotalsKey, Totals]) -> None:
    rows = [
        {"account_id": account_id, "model": model, "kind": kind, **{name: getattr(more, name) for name in _SUMS}}
        for (account_id, model, kind), more in sums.items()
    ]
    _ADD_TOTALS.run_for_all(tx.connection, rows)


def _totals(row: Row[Any]) -> Totals:
    return Totals(*(row._mapping[each.name] for each in fields(Totals)))  # noqa: SLF001 -- a row's public mapping


def _find_block(tx: Transaction, query: Select[Any]) -> LedgerBlock | None:
    row = tx.connection.execute(query).one_or_none()
    if row is None:
        return None
    return LedgerBlock(**{each.name: row._mapping[each.name] for each in fields(LedgerBlock)})  # noqa: SLF001


_SUMS = tuple(each.name for each in fields(Totals))
_KEY = ("account_id", "model", "kind")
_ADD_TOTALS = Prepared(
    text(
        f"INSERT INTO ledger_totals ({', '.join((*_KEY, *_SUMS))}) "  # noqa: S608 -- names of columns
        f"VALUES ({', '.join(f':{name}' for name in (*_KEY, *_SUMS))}) ON CONFLICT ({', '.join(_KEY)}) "
        f"DO UPDATE SET {', '.join(f'{name} = ledger_totals.{name} + excluded.{name}' for name in _SUMS)}"
    )
)
