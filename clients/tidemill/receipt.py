"""A receipt: a session's rows of the ledger, each with the proof that it stands in a sealed block."""

from dataclasses import dataclass

from tidemill.billing_results import LedgerBlock, ledger_block_of
from tidemill.v1 import billing_pb2


@dataclass(frozen=True, slots=True)
class ReceiptEntry:
    """One row and its place."""

    row: str
    """The row as it was sealed: JSON, byte by byte what its leaf is the hash of."""
    block_number: int
    merkle_path: tuple[bytes, ...]
    """The hashes from the row's leaf up to the root of the block, 32 bytes each."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a session cost, with the proof of it: see `verify_receipt`."""

    subject: str
    """sessions/{session}."""
    account: str
    """accounts/{account}."""
    cost_microcredits: int
    """What it cost in all, refunds taken off. 1 credit = 1,000,000 microcredits."""
    billed_seconds: int
    final: bool
    """Whether the session ended and was drained: its cost can only become less, by a refund. A row for nothing may
    follow, of a generation that ended in the drain and was told late."""
    entries: tuple[ReceiptEntry, ...]
    """All rows of the session, oldest first."""
    blocks: tuple[LedgerBlock, ...]
    """The blocks in which they stand, by number."""


def receipt_of(message: billing_pb2.Receipt) -> Receipt:
    """Read a receipt."""
    return Receipt(
        subject=message.subject,
        account=message.account,
        cost_microcredits=message.cost_microcredits,
        billed_seconds=message.billed_seconds,
        final=message.final,
        entries=tuple(ReceiptEntry(each.row, each.block_number, tuple(each.merkle_path)) for each in message.entries),
        blocks=tuple(ledger_block_of(each) for each in message.blocks),
    )


def receipt_message(receipt: Receipt) -> billing_pb2.Receipt:
    """The receipt as the wire has it."""
    message = billing_pb2.Receipt(
        subject=receipt.subject,
        account=receipt.account,
        cost_microcredits=receipt.cost_microcredits,
        billed_seconds=receipt.billed_seconds,
        final=receipt.final,
    )
    for entry in receipt.entries:
        message.entries.add(row=entry.row, block_number=entry.block_number, merkle_path=entry.merkle_path)
    for block in receipt.blocks:
        written = message.blocks.add(
            number=block.number,
            first_sequence=block.first_sequence,
            last_sequence=block.last_sequence,
            merkle_root=block.merkle_root,
            previous_hash=block.previous_hash,
            block_hash=block.block_hash,
        )
        if block.seal_time is not None:
            written.seal_time.FromDatetime(block.seal_time)
    return message
