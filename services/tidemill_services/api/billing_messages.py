"""Between the ledger, prices, receipts and usage reports and their messages."""

from tidemill.v1 import billing_pb2
from tidemill_services.api.convert import timestamp
from tidemill_services.domain.ledger import CHARGES, EntryKind, LedgerEntry
from tidemill_services.domain.ledger_block import LedgerBlock, block_hash
from tidemill_services.domain.price import Price
from tidemill_services.domain.usage_report import GroupBy, UsageRow
from tidemill_services.store.receipts import Receipt

KINDS = {kind: billing_pb2.LedgerEntry.Kind.Value(f"KIND_{kind.value}") for kind in EntryKind}
GROUPINGS = {billing_pb2.GetUsageReportRequest.GroupBy.Value(f"GROUP_BY_{group.value}"): group for group in GroupBy}


def entry_message(entry: LedgerEntry) -> billing_pb2.LedgerEntry:
    """A row."""
    posting = entry.posting
    return billing_pb2.LedgerEntry(
        account_sequence=entry.account_sequence,
        kind=billing_pb2.LedgerEntry.Kind.Name(KINDS[posting.kind]),
        amount_microcredits=posting.amount_microcredits,
        balance_microcredits=entry.balance_microcredits,
        commit_time=timestamp(entry.commit_ms),
        subject=posting.subject,
        reason=posting.reason,
        ledger_sequence=entry.ledger_sequence,
        account=f"accounts/{entry.account_id}",
        hold_microcredits=posting.hold_microcredits,
        held_microcredits=entry.held_microcredits,
        contra=posting.contra,
        billed_seconds=posting.used.billed_seconds,
        usage_start_time=timestamp(posting.used.from_ms or None),
        usage_end_time=timestamp(posting.used.until_ms or None),
        actor=posting.actor,
    )


def block_message(block: LedgerBlock) -> billing_pb2.LedgerBlock:
    """A block."""
    return billing_pb2.LedgerBlock(
        number=block.number,
        first_sequence=block.first_sequence,
        last_sequence=block.last_sequence,
        merkle_root=block.merkle_root,
        previous_hash=block.previous_hash,
        seal_time=timestamp(block.seal_ms),
        block_hash=block_hash(block),
    )


def receipt_message(receipt: Receipt) -> billing_pb2.Receipt:
    """A receipt, with what it sums up to."""
    billed = [proven.entry.posting for proven in receipt.entries if proven.entry.posting.kind in _BILLED]
    return billing_pb2.Receipt(
        subject=receipt.subject,
        account=f"accounts/{receipt.account_id}",
        entries=[
            billing_pb2.Receipt.Entry(
                row=proven.row.decode("ascii"), block_number=proven.block_number, merkle_path=proven.merkle_path
            )
            for proven in receipt.entries
        ],
        blocks=[block_message(block) for block in receipt.blocks],
        cost_microcredits=-sum(posting.amount_microcredits for posting in billed),
        billed_seconds=sum(posting.used.billed_seconds for posting in billed),
        final=receipt.final,
    )


def price_message(price: Price) -> billing_pb2.Price:
    """A price."""
    return billing_pb2.Price(
        revision=price.revision,
        model=f"models/{price.model}",
        account=f"accounts/{price.account_id}" if price.account_id else "",
        session_microcredits_per_second=price.session_microcredits_per_second,
        input_microcredits_per_million_tokens=price.input_microcredits_per_million_tokens,
        output_microcredits_per_million_tokens=price.output_microcredits_per_million_tokens,
        create_time=timestamp(price.create_ms),
        actor=price.actor,
        withdrawn=price.withdrawn,
    )


def usage_message(row: UsageRow, account_id: str) -> billing_pb2.UsageRow:
    """A row of a usage report."""
    return billing_pb2.UsageRow(
        day=row.day,
        model=f"models/{row.model}" if row.model else "",
        api_key=f"accounts/{account_id}/keys/{row.key_id}" if row.key_id else "",
        label_value=row.label_value,
        num_sessions=len(row.session_ids),
        billed_seconds=row.billed_seconds,
        charged_microcredits=row.charged_microcredits,
        refunded_microcredits=row.refunded_microcredits,
        num_generations=row.num_generations,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
    )


_BILLED = CHARGES | {EntryKind.REFUND}
