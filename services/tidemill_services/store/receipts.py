"""Units of work on receipts: the rows of a session, with the proof that each stands in a sealed block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select

from tidemill_services.domain import merkle
from tidemill_services.domain.errors import ReceiptNotReadyError
from tidemill_services.domain.ledger import LedgerEntry, canonical_row
from tidemill_services.domain.ledger_block import LedgerBlock
from tidemill_services.domain.session import SessionState
from tidemill_services.domain.session_billing import subject_of
from tidemill_services.store.database import Transaction
from tidemill_services.store.ledger import entry_of
from tidemill_services.store.ledger_seal import get_block
from tidemill_services.store.sessions import get_session
from tidemill_services.store.tables import ledger_blocks, ledger_entries


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """A row and its place in a block."""

    entry: LedgerEntry
    row: bytes  # its canonical bytes
    block_number: int
    merkle_path: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Receipt:
    """All rows of a session."""

    account_id: str
    subject: str
    entries: Sequence[ProvenEntry]
    blocks: Sequence[LedgerBlock]
    final: bool  # its cost can only become less, by a refund; a row for nothing may follow


def make_receipt(tx: Transaction, account_id: str, session_id: str) -> Receipt:
    """Return a session's receipt until now. Raises SessionNotFoundError, ReceiptNotReadyError."""
    session = get_session(tx, account_id, session_id)
    subject = subject_of(session)
    by_block: dict[int, list[LedgerEntry]] = {}
    for row in tx.connection.execute(_rows_with_blocks(subject)):
        if row.block_number is None:
            raise ReceiptNotReadyError(retry_after_seconds=1)
        by_block.setdefault(row.block_number, []).append(entry_of(row))
    blocks = [get_block(tx, number) for number in by_block]
    proven = [each for block in blocks for each in _proven(tx, block, by_block[block.number])]
    return Receipt(account_id, subject, proven, blocks, final=session.state is SessionState.ENDED)


def _rows_with_blocks(subject: str) -> Select[Any]:
    """A subject's rows in their order, each with the number of its block, or null."""
    block_number = (
        select(ledger_blocks.c.number)
        .where(ledger_blocks.c.last_sequence >= ledger_entries.c.ledger_sequence)
        .order_by(ledger_blocks.c.last_sequence)
        .limit(1)
        .scalar_subquery()
    )
    query = select(ledger_entries, block_number.label("block_number"))
    return query.where(ledger_entries.c.subject == subject).order_by(ledger_entries.c.ledger_sequence)


def _proven(tx: Transaction, block: LedgerBlock, entries: Sequence[LedgerEntry]) -> list[ProvenEntry]:
    in_block = ledger_entries.c.ledger_sequence.between(block.first_sequence, block.last_sequence)
    rows = tx.connection.execute(select(ledger_entries).where(in_block).order_by(ledger_entries.c.ledger_sequence))
    leaves = [merkle.leaf_hash(canonical_row(entry_of(row))) for row in rows]
    paths = merkle.paths(leaves, [entry.ledger_sequence - block.first_sequence for entry in entries])
    return [
        ProvenEntry(entry, canonical_row(entry), block.number, path) for entry, path in zip(entries, paths, strict=True)
    ]
