"""The ledger's arithmetic: what is posted to an account, and the row and the balance that come of it.

A row is for ever. Its canonical bytes are what is sealed into a block, and what a receipt shows.
"""

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields

from tidemill_services.domain.errors import FieldInvalidError, InsufficientCreditsError
from tidemill_services.domain.pricing import credits_text

MAX_AMOUNT_MICROCREDITS = 10**15
MAX_BALANCE_MICROCREDITS = 10**18  # which both databases can keep
MAX_REASON_LENGTH = 256


class EntryKind(enum.StrEnum):
    """What a row is."""

    GRANT = "GRANT"
    HOLD = "HOLD"
    RELEASE = "RELEASE"
    SESSION_CHARGE = "SESSION_CHARGE"
    TOKEN_CHARGE = "TOKEN_CHARGE"  # noqa: S105 -- no password
    RESERVATION_CHARGE = "RESERVATION_CHARGE"
    REFUND = "REFUND"
    TRANSFER = "TRANSFER"
    CORRECTION = "CORRECTION"


CHARGES = frozenset({EntryKind.SESSION_CHARGE, EntryKind.TOKEN_CHARGE, EntryKind.RESERVATION_CHARGE})


class Contra(enum.StrEnum):
    """Where an amount comes from or goes to."""

    GRANTS = "platform/grants"
    HOLDS = "platform/holds"
    SESSIONS = "platform/sessions"
    TOKENS = "platform/tokens"
    CORRECTIONS = "platform/corrections"


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account has. What is held is a part of the balance, so `held_microcredits` is never more."""

    balance_microcredits: int = 0
    held_microcredits: int = 0
    account_sequence: int = 0  # of its last row

    @property
    def available_microcredits(self) -> int:
        """What may be held or taken."""
        return self.balance_microcredits - self.held_microcredits


@dataclass(frozen=True, slots=True)
class Used:
    """What a charge is for. Times are milliseconds since 1970; 0: it is for no time."""

    model: str = ""
    from_ms: int = 0
    until_ms: int = 0
    billed_seconds: int = 0
    price_microcredits_per_second: int = 0
    price_revision: int = 0
    num_generations: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


NOTHING_USED = Used()


@dataclass(frozen=True, slots=True)
class Posting:
    """What shall become a row."""

    kind: EntryKind
    contra: str
    amount_microcredits: int = 0  # added to the balance
    hold_microcredits: int = 0  # added to what is held
    subject: str = ""  # sessions/{session}, or empty
    used: Used = NOTHING_USED
    reason: str = ""
    actor: str = ""  # the name of a key; empty: the server itself


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A row."""

    ledger_sequence: int
    account_id: str
    account_sequence: int
    posting: Posting
    balance_microcredits: int
    held_microcredits: int
    commit_ms: int


def posted(balance: Balance, account_id: str, posting: Posting, ledger_sequence: int, now_ms: int) -> LedgerEntry:
    """Return the row that a posting makes.

    Raises InsufficientCreditsError where more would be taken than is there, FieldInvalidError where too much would be.
    """
    entry = LedgerEntry(
        ledger_sequence=ledger_sequence,
        account_id=account_id,
        account_sequence=balance.account_sequence + 1,
        posting=posting,
        balance_microcredits=balance.balance_microcredits + posting.amount_microcredits,
        held_microcredits=balance.held_microcredits + posting.hold_microcredits,
        commit_ms=now_ms,
    )
    if not 0 <= entry.held_microcredits <= entry.balance_microcredits:
        raise InsufficientCreditsError(_shortfall(balance, entry))
    if entry.balance_microcredits > MAX_BALANCE_MICROCREDITS:
        most = credits_text(MAX_BALANCE_MICROCREDITS)
        raise FieldInvalidError(f"No account has more than {most} credits.", field="amount_microcredits")
    return entry


def balance_after(entry: LedgerEntry) -> Balance:
    """Return the balance after a row."""
    return Balance(entry.balance_microcredits, entry.held_microcredits, entry.account_sequence)


def canonical_row(entry: LedgerEntry) -> bytes:
    """Return what a row's leaf is the hash of: JSON with sorted keys and no spaces, in ASCII."""
    return json.dumps(row_fields(entry), sort_keys=True, separators=(",", ":")).encode("ascii")


def row_fields(entry: LedgerEntry) -> Mapping[str, str | int]:
    """Return all that a row says, by name."""
    posting, used = entry.posting, entry.posting.used
    return {
        "account": f"accounts/{entry.account_id}",
        "account_sequence": entry.account_sequence,
        "actor": posting.actor,
        "amount_microcredits": posting.amount_microcredits,
        "balance_microcredits": entry.balance_microcredits,
        "commit_ms": entry.commit_ms,
        "contra": posting.contra,
        "held_microcredits": entry.held_microcredits,
        "hold_microcredits": posting.hold_microcredits,
        "kind": posting.kind.value,
        "ledger_sequence": entry.ledger_sequence,
        "reason": posting.reason,
        "subject": posting.subject,
        **{each.name: getattr(used, each.name) for each in fields(used) if each.name != "model"},
        "model": f"models/{used.model}" if used.model else "",
    }


def check_amount(amount_microcredits: int, *, may_take: bool = False) -> None:
    """Raise FieldInvalidError unless this can be granted, or with `may_take` also taken."""
    least = -MAX_AMOUNT_MICROCREDITS if may_take else 1
    if amount_microcredits == 0 or not least <= amount_microcredits <= MAX_AMOUNT_MICROCREDITS:
        limits = f"{least:,} to {MAX_AMOUNT_MICROCREDITS:,}" + (" and not 0" if may_take else "")
        raise FieldInvalidError(f"amount_microcredits must be {limits}.", field="amount_microcredits")


def check_reason(reason: str) -> None:
    """Raise FieldInvalidError unless this can be a row's reason."""
    if not 1 <= len(reason) <= MAX_REASON_LENGTH or not reason.isprintable():
        raise FieldInvalidError(f"reason must be 1 to {MAX_REASON_LENGTH} printable characters.", field="reason")


def _shortfall(balance: Balance, entry: LedgerEntry) -> str:
    missing = entry.held_microcredits - entry.balance_microcredits
    return (
        f"{credits_text(balance.available_microcredits)} credits are there that nothing holds; "
        f"{credits_text(max(missing, -entry.held_microcredits))} more are needed."
    )
