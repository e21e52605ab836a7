"""Whether the ledger still is what it was when somebody kept a receipt, or a block's hash.

Who can write into the database can make a past that fits itself. It does not fit what others have kept of another one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tidemill_services.domain.ledger import LedgerEntry, canonical_row
from tidemill_services.domain.ledger_block import LedgerBlock, block_hash
from tidemill_services.domain.misfit import Misfit, MisfitKind


@dataclass(frozen=True, slots=True)
class KeptHash:
    """The hash that a block had."""

    number: int
    block_hash: bytes
    source: str  # who kept it: the name of a file, or of an option


@dataclass(frozen=True, slots=True)
class KeptRow:
    """The canonical bytes that a row had."""

    ledger_sequence: int
    row: bytes
    source: str


def kept_row_misfits(kept: KeptRow, found: LedgerEntry | None) -> Iterator[Misfit]:
    """Yield what does not fit of a row that was kept and the row of its number."""
    if found is None:
        sentence = f"Row {kept.ledger_sequence} is missing: {kept.source} has it."
        yield Misfit(MisfitKind.KEPT_ROW, sentence, ledger_sequence=kept.ledger_sequence)
    elif canonical_row(found) != kept.row:
        account = f"accounts/{found.account_id}"
        yield Misfit(
            MisfitKind.KEPT_ROW,
            f"Row {found.ledger_sequence} ({account}) was rewritten: {kept.source} has it otherwise.",
            account=account,
            account_sequence=found.account_sequence,
            ledger_sequence=found.ledger_sequence,
            session=found.posting.subject,
        )


def kept_block_misfits(kept: KeptHash, found: LedgerBlock | None) -> Iterator[Misfit]:
    """Yield what does not fit of a block that was kept and the block of its number."""
    if found is None:
        sentence = f"Block {kept.number} is missing: {kept.source} has it."
        yield Misfit(MisfitKind.KEPT_BLOCK, sentence, block=kept.number)
    elif block_hash(found) != kept.block_hash:
        sentence = (
            f"Block {kept.number} was rewritten, or one before it: it has the hash {block_hash(found).hex()}, and "
            f"{kept.source} has {kept.block_hash.hex()}."
        )
        yield Misfit(MisfitKind.KEPT_BLOCK, sentence, block=kept.number)
