"""Sums over the ledger's rows, by account, model and kind."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from tidemill_services.domain.ledger import LedgerEntry


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over rows."""

    amount_microcredits: int = 0
    hold_microcredits: int = 0
    billed_seconds: int = 0
    num_generations: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


TotalsKey = tuple[str, str, str]
"""Account id, model (empty: of none) and kind."""


def totals_of(entries: Iterable[LedgerEntry]) -> Mapping[TotalsKey, Totals]:
    """Sum up rows."""
    sums: defaultdict[TotalsKey, Totals] = defaultdict(Totals)
    for entry in entries:
        posting = entry.posting
        key = (entry.account_id, posting.used.model, posting.kind.value)
        sums[key] += Totals(
            posting.amount_microcredits,
            posting.hold_microcredits,
            posting.used.billed_seconds,
            posting.used.num_generations,
            posting.used.prompt_tokens,
            posting.used.completion_tokens,
        )
    return sums
