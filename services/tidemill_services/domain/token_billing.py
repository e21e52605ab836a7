"""What answers cost by their tokens, and the credits that processes hold ahead for them. All in exact integers.

A process leases a *slice* of an account's credits, sets parts of it aside for the answers under way, and charges in
groups. So no answer waits for the store, and no credit is spent twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tidemill_services.domain.ledger import Contra, EntryKind, LedgerEntry, Posting, Used
from tidemill_services.domain.price import Price

ROUND_UP_TO_MICROCREDITS = 10_000  # a hundredth of a credit, once for each answer
AHEAD_SHARE = 8  # no more than an eighth of what an account has is held ahead of need
SLICE_LEASE_MS = 60_000  # the slice of a process that gave no sign of life for so long is given back
LAPSED = "The hold had lapsed, and no more credits were there."

_TOKENS_OF_A_PRICE = 1_000_000
_HOLD_REASON = "Held ahead for answers that are paid by their tokens."


@dataclass(frozen=True, slots=True)
class TokenCharge:
    """What one answer costs."""

    key_id: str
    model: str
    price_revision: int
    cost_microcredits: int
    prompt_tokens: int
    completion_tokens: int
    age_ms: int = 0  # since its end


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a process wants of one account: answers charged, and so much held from then on."""

    account_id: str
    number: int  # of its charges; the same again until they are known to have come
    charges: Sequence[TokenCharge]
    needed_microcredits: int  # for the answers under way, and those that wait
    ahead_microcredits: int  # for those to come, as far as there is plenty
    gives_back: bool  # what it holds beyond that


def token_cost(price: Price, prompt_tokens: int, completion_tokens: int) -> int:
    """Return what an answer costs in microcredits, rounded up to a hundredth of a credit."""
    exact = (
        prompt_tokens * price.input_microcredits_per_million_tokens
        + completion_tokens * price.output_microcredits_per_million_tokens
    )
    return -(-exact // (_TOKENS_OF_A_PRICE * ROUND_UP_TO_MICROCREDITS)) * ROUND_UP_TO_MICROCREDITS


def settled(
    settlement: Settlement, held_microcredits: int, available_microcredits: int, now_ms: int
) -> tuple[list[Posting], int]:
    """Return the rows of a settlement, and what the slice holds after them.

    Answers are paid out of the slice. Where it has lapsed, they are paid out of what the account has besides, and cost
    no more than that.
    """
    held, available = held_microcredits, available_microcredits
    postings = []
    for charge in settlement.charges:
        of_slice = min(charge.cost_microcredits, held)
        of_balance = min(charge.cost_microcredits - of_slice, available)
        held, available = held - of_slice, available - of_balance
        postings.append(_charge(charge, of_slice, of_balance, now_ms))
    missing = max(0, settlement.needed_microcredits - held)
    ahead = min(settlement.ahead_microcredits, max(0, available - missing) // AHEAD_SHARE)
    change = min(settlement.needed_microcredits + ahead - held, available)
    if change > 0 or (change and settlement.gives_back):
        postings.append(hold_change(change))
        held += change
    return postings, held


def hold_change(change_microcredits: int) -> Posting:
    """Return the row that holds more ahead, or gives some of it back."""
    kind = EntryKind.HOLD if change_microcredits > 0 else EntryKind.RELEASE
    return Posting(kind, Contra.HOLDS, hold_microcredits=change_microcredits, reason=_HOLD_REASON)


def token_charge_misfit(row: LedgerEntry, price: Price | None) -> str:
    """Return what is wrong with an answer's charge, by the price that it names; nothing if it fits."""
    posting, used = row.posting, row.posting.used
    if price is None:
        return f"is charged by the price {used.price_revision}, which is not there"
    if price.model != used.model or price.account_id not in ("", row.account_id):
        return f"is charged by the price {used.price_revision}, which is not of its model and account"
    cost = token_cost(price, used.prompt_tokens, used.completion_tokens)
    paid = -posting.amount_microcredits
    if paid != cost and not (paid < cost and posting.reason == LAPSED):
        return f"charges {paid:,} microcredits for tokens that cost {cost:,}"
    return ""


def subject_of(key_id: str) -> str:
    """What the rows of a key's answers are for."""
    return f"keys/{key_id}"


def _charge(charge: TokenCharge, of_slice: int, of_balance: int, now_ms: int) -> Posting:
    paid = of_slice + of_balance
    return Posting(
        EntryKind.TOKEN_CHARGE,
        Contra.TOKENS,
        amount_microcredits=-paid,
        hold_microcredits=-of_slice,
        subject=subject_of(charge.key_id),
        used=Used(
            model=charge.model,
            from_ms=now_ms - charge.age_ms,
            until_ms=now_ms - charge.age_ms,
            price_revision=charge.price_revision,
            num_generations=1,
            prompt_tokens=charge.prompt_tokens,
            completion_tokens=charge.completion_tokens,
        ),
        reason=LAPSED if paid < charge.cost_microcredits else "",
    )
