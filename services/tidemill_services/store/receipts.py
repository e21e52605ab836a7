"""Units of work on receipts: the rows of a session, with the proof that each stands in a sealed block."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from tidemill_services.domain import merkle
from tidemill_services.domain.errors import ReceiptNotReadyError
from tidemill_services.domain.ledger import LedgerEntry, canonical_row
from tidemill_services.domain.ledger_block import LedgerBlock
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
    final: bool  # only a refund can add a row


def make_receipt(tx: Transaction, account_id: str, session_id: str) -> Receipt:
    """Return a session's receipt until now. Raises SessionNotFoundError, ReceiptNotReadyError."""
    session = get_session(tx, account_id, session_id)
    subject = subject_of(session)
    query = select(ledger_entries).where(ledger_entries.c.subject == subject)
    rows = tx.connection.execute(query.order_by(ledger_entries.c.ledger_sequence)).all()
    by_block: dict[int, list[LedgerEntry]] = {}
    for entry in map(entry_of, rows):
        by_block.setdefault(_block_number(tx, entry), []).append(entry)
    blocks = [get_block(tx, number) for number in by_block]
    proven = [each for block in blocks for each in _proven(tx, block, by_block[block.number])]
    return Receipt(account_id, subject, proven, blocks, final=not session.is_open)


def _block_number(tx: Transaction, entry: LedgerEntry) -> int:
    query = select(ledger_blocks.c.number).where(ledger_blocks.c.last_sequence >= entry.ledger_sequence)
    number = tx.connection.execute(query.order_by(ledger_blocks.c.last_sequence).limit(1)).scalar()
    if number is None:
        raise ReceiptNotReadyError(retry_after_seconds=1)
    return int(number)


def _proven(tx: Transaction, block: LedgerBlock, entries: Sequence[LedgerEntry]) -> list[ProvenEntry]:
    in_block = ledger_entries.c.ledger_sequence.between(block.first_sequence, block.last_sequence)
    rows = tx.connection.execute(select(ledger_entries).where(in_block).order_by(ledger_entries.c.ledger_sequence))
    leaves = [merkle.leaf_hash(canonical_row(entry_of(row))) for row in rows]
    paths = merkle.paths(leaves, [entry.ledger_sequence - block.first_sequence for entry in entries])
    return [
        ProvenEntry(entry, canonical_row(entry), block.number, path) for entry, path in zip(entries, paths, strict=True)
    ]
