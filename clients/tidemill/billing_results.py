"""What the methods of `client.accounts` return of money: frozen values, read from the wire in this file only.

Money is an integer of microcredits (1 credit = 1,000,000 microcredits), never a float; times are aware `datetime`.
"""

from dataclasses import dataclass
from datetime import datetime

from tidemill.reading import name_of, time_of
from tidemill.results import ModelPrices
from tidemill.v1 import billing_pb2


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One row of the ledger. Rows are never changed or removed."""

    ledger_sequence: int
    """Its number on the platform, from 1, without gaps."""
    account: str
    """accounts/{account}."""
    account_sequence: int
    """Its number within the account, from 1, without gaps."""
    kind: str
    """grant, hold, release, session_charge, token_charge, reservation_charge, refund, transfer or correction."""
    amount_microcredits: int
    """Added to the balance; negative for a charge."""
    balance_microcredits: int
    """The balance after it."""
    hold_microcredits: int
    """Added to what is held; negative for what is held no longer."""
    held_microcredits: int
    """What is held after it."""
    contra: str
    """Where the amount came from or went to, such as platform/sessions."""
    subject: str
    """sessions/{session} that it is for; empty for the account as such."""
    billed_seconds: int
    """Seconds of a session that it charges; negative where they are given back."""
    usage_start_time: datetime | None
    """From when on it charges."""
    usage_end_time: datetime | None
    """Until when it charges."""
    reason: str
    """Why, for grants, refunds and corrections."""
    actor: str
    """The key that did it; empty when the server itself did."""
    commit_time: datetime | None


@dataclass(frozen=True, slots=True)
class LedgerBlock:
    """Some rows of the ledger, sealed for good."""

    number: int
    """From 1, without gaps."""
    first_sequence: int
    """`ledger_sequence` of its first row."""
    last_sequence: int
    """`ledger_sequence` of its last row."""
    merkle_root: bytes
    """The root of the Merkle tree of its rows: 32 bytes."""
    previous_hash: bytes
    """`block_hash` of the block before; 32 zeros for the first."""
    seal_time: datetime | None
    block_hash: bytes
    """SHA-256 over all of the above: 32 bytes."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, from some moment on."""

    revision: int
    """Its number on the platform; grows with time."""
    model: str
    """models/{model}."""
    account: str
    """accounts/{account} for which alone it holds; empty: all without one of their own."""
    prices: ModelPrices
    withdrawn: bool
    """Whether it took an account's own price away, so that the platform's holds again."""
    create_time: datetime | None
    """From when it holds."""
    actor: str
    """The key that set it; empty when it came with the model's package."""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What was used in one day, of one model, and so on; what it was not asked to be grouped by is empty."""

    day: str
    """UTC, such as 2026-11-21."""
    model: str
    """models/{model}."""
    api_key: str
    """accounts/{account}/keys/{key}."""
    label_value: str
    """The value of the label that was asked for; empty for sessions without it."""
    num_sessions: int
    """Sessions that were billed for a part of it; not to be summed up over days."""
    billed_seconds: int
    """Those given back taken off."""
    charged_microcredits: int
    refunded_microcredits: int
    num_generations: int
    """Generations that ended in these sessions."""
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What was used and what it cost."""

    rows: tuple[UsageRow, ...]
    """Oldest first."""
    total: UsageRow
    """All of it in one row."""
    start_time: datetime | None
    """From when on."""
    end_time: datetime | None
    """Until when."""


def ledger_entry_of(message: billing_pb2.LedgerEntry) -> LedgerEntry:
    """Read a row of the ledger."""
    return LedgerEntry(
        ledger_sequence=message.ledger_sequence,
        account=message.account,
        account_sequence=message.account_sequence,
        kind=name_of(billing_pb2.LedgerEntry.Kind, message.kind, "KIND_"),
        amount_microcredits=message.amount_microcredits,
        balance_microcredits=message.balance_microcredits,
        hold_microcredits=message.hold_microcredits,
        held_microcredits=message.held_microcredits,
        contra=message.contra,
        subject=message.subject,
        billed_seconds=message.billed_seconds,
        usage_start_time=time_of(message, "usage_start_time"),
        usage_end_time=time_of(message, "usage_end_time"),
        reason=message.reason,
        actor=message.actor,
        commit_time=time_of(message, "commit_time"),
    )


def ledger_block_of(message: billing_pb2.LedgerBlock) -> LedgerBlock:
    """Read a block."""
    return LedgerBlock(
        number=message.number,
        first_sequence=message.first_sequence,
        last_sequence=message.last_sequence,
        merkle_root=message.merkle_root,
        previous_hash=message.previous_hash,
        seal_time=time_of(message, "seal_time"),
        block_hash=message.block_hash,
    )


def price_of(message: billing_pb2.Price) -> Price:
    """Read a price."""
    return Price(
        revision=message.revision,
        model=message.model,
        account=message.account,
        prices=ModelPrices(
            session_microcredits_per_second=message.session_microcredits_per_second,
            input_microcredits_per_million_tokens=message.input_microcredits_per_million_tokens,
            output_microcredits_per_million_tokens=message.output_microcredits_per_million_tokens,
        ),
        withdrawn=message.withdrawn,
        create_time=time_of(message, "create_time"),
        actor=message.actor,
    )


def usage_report_of(message: billing_pb2.UsageReport) -> UsageReport:
    """Read a usage report."""
    return UsageReport(
        rows=tuple(_usage_row_of(row) for row in message.rows),
        total=_usage_row_of(message.total),
        start_time=time_of(message, "start_time"),
        end_time=time_of(message, "end_time"),
    )


def _usage_row_of(message: billing_pb2.UsageRow) -> UsageRow:
    return UsageRow(
        day=message.day,
        model=message.model,
        api_key=message.api_key,
        label_value=message.label_value,
        num_sessions=message.num_sessions,
        billed_seconds=message.billed_seconds,
        charged_microcredits=message.charged_microcredits,
        refunded_microcredits=message.refunded_microcredits,
        num_generations=message.num_generations,
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
    )
