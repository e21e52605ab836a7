"""What was used and what it cost, summed up by what a reader asks for."""

import enum
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.domain.session import MAX_LABEL_KEY_LENGTH

MAX_DAYS = 400
_DAY_MS = 86_400_000


class GroupBy(enum.StrEnum):
    """What rows are apart by."""

    DAY = "DAY"
    MODEL = "MODEL"
    API_KEY = "API_KEY"
    LABEL = "LABEL"


@dataclass(frozen=True, slots=True)
class ReportQuestion:
    """What is asked for: what was used from `start_ms` on and before `end_ms`, milliseconds since 1970."""

    start_ms: int
    end_ms: int
    group_by: frozenset[GroupBy] = frozenset({GroupBy.DAY, GroupBy.MODEL})
    label_key: str = ""

    def check(self) -> None:
        """Raise FieldInvalidError unless it can be answered."""
        if not 0 <= self.start_ms < self.end_ms <= self.start_ms + MAX_DAYS * _DAY_MS:
            raise FieldInvalidError(
                f"end_time must be after start_time, by {MAX_DAYS} days at the most.", field="end_time"
            )
        if (GroupBy.LABEL in self.group_by) != (1 <= len(self.label_key) <= MAX_LABEL_KEY_LENGTH):
            raise FieldInvalidError(
                f"label_key must be 1 to {MAX_LABEL_KEY_LENGTH} characters with GROUP_BY_LABEL, and empty without.",
                field="label_key",
            )


@dataclass(frozen=True, slots=True)
class UseOfADay:
    """What one session used on one day, UTC, or one key by its tokens."""

    day: int  # since 1970
    session_id: str  # empty: it was paid by tokens
    model: str
    key_id: str
    labels: Mapping[str, str]
    billed_seconds: int
    charged_microcredits: int
    refunded_microcredits: int
    num_generations: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(slots=True)
class UsageRow:
    """Sums; what it was not asked to be grouped by is empty."""

    day: str = ""  # as 2026-11-21
    model: str = ""
    key_id: str = ""
    label_value: str = ""
    session_ids: set[str] = field(default_factory=set)
    billed_seconds: int = 0
    charged_microcredits: int = 0
    refunded_microcredits: int = 0
    num_generations: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, use: UseOfADay) -> None:
        """Add what was used."""
        if use.session_id:
            self.session_ids.add(use.session_id)
        self.billed_seconds += use.billed_seconds
        self.charged_microcredits += use.charged_microcredits
        self.refunded_microcredits += use.refunded_microcredits
        self.num_generations += use.num_generations
        self.prompt_tokens += use.prompt_tokens
        self.completion_tokens += use.completion_tokens


def first_of_month_ms(now_ms: int) -> int:
    """Return the begin of the month, UTC."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    return int(now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()) * 1000


def summed_up(uses: Iterable[UseOfADay], question: ReportQuestion) -> tuple[list[UsageRow], UsageRow]:
    """Return the rows in their order, and their sum."""
    total = UsageRow()
    rows: defaultdict[tuple[str, str, str, str], UsageRow] = defaultdict(UsageRow)
    for use in uses:
        place = _place(use, question.group_by, question.label_key)
        rows[place].day, rows[place].model, rows[place].key_id, rows[place].label_value = place
        rows[place].add(use)
        total.add(use)
    return [rows[place] for place in sorted(rows)], total


def _place(use: UseOfADay, group_by: Collection[GroupBy], label_key: str) -> tuple[str, str, str, str]:
    day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=use.day)).date().isoformat()
    return (
        day if GroupBy.DAY in group_by else "",
        use.model if GroupBy.MODEL in group_by else "",
        use.key_id if GroupBy.API_KEY in group_by else "",
        use.labels.get(label_key, "") if GroupBy.LABEL in group_by else "",
    )
