"""What sessions of one account cost, kept by a test by itself: no code of the platform is used in it."""

from dataclasses import dataclass, field
from itertools import pairwise

DAY_MS = 86_400_000
FOREVER_MS = 2**60
Span = tuple[int, int]


@dataclass(slots=True)
class SessionTrace:
    """When one session's model was ready, when it waited, and so when it was billed."""

    price: int
    max_spend: int | None
    money: int  # of the account when it began; what is granted later is added
    readiness: list[Span] = field(default_factory=list)
    ready_since_ms: int | None = None
    waits: list[Span] = field(default_factory=list)
    waiting_since_ms: int | None = None
    spans: list[Span] = field(default_factory=list)  # what was billed, once it ended
    was_told_late: bool = False  # of waits: then something may have been charged and given back

    def ready(self, now_ms: int) -> None:
        """The model is ready, if it was not."""
        if self.ready_since_ms is None:
            self.ready_since_ms = now_ms

    def lost(self, lost_ms: int) -> None:
        """It is not since then; the clock stands from where there was nothing left to pay with."""
        if self.ready_since_ms is not None:
            self.readiness.append((self.ready_since_ms, min(lost_ms, self.used_up_ms() or FOREVER_MS)))
            self.ready_since_ms = None

    def stopped(self, now_ms: int) -> None:
        """The session ended, now or when there was nothing left to pay with."""
        end_ms = min(now_ms, self.used_up_ms() or FOREVER_MS)
        self.spans = [(begin, min(end, end_ms)) for begin, end in self._running() if begin < end_ms]

    def used_up_ms(self) -> int | None:
        """When there is nothing left to pay with; None while that does not come, and if it costs nothing."""
        if not self.price:
            return None
        left_ms = self._paid_ms()
        for begin_ms, end_ms in self._running():
            if left_ms < end_ms - begin_ms:
                return begin_ms + left_ms
            left_ms -= end_ms - begin_ms
        return None

    def ends_by_its_own_limit(self) -> bool:
        """Whether its limit, not the money, is what comes first."""
        return self.max_spend is not None and self.max_spend // self.price <= self.money // self.price

    def billed_ms(self) -> int:
        """Of one that ended."""
        return sum(until_ms - from_ms for from_ms, until_ms in self.spans)

    def billed_seconds(self) -> int:
        """The same in seconds that were begun."""
        return (self.billed_ms() + 999) // 1000

    def _paid_ms(self) -> int:
        most = self.money if self.max_spend is None else min(self.money, self.max_spend)
        return most // self.price * 1000

    def _running(self) -> list[Span]:
        """When the model was ready and nothing waited, moment by moment between all that happened."""
        ready = [*self.readiness, *_since(self.ready_since_ms)]
        waits = [*self.waits, *_since(self.waiting_since_ms)]
        moments = sorted({moment for span in (*ready, *waits) for moment in span})
        runs = [span for span in pairwise(moments) if _is_within(span[0], ready) and not _is_within(span[0], waits)]
        return joined(runs)


def _since(from_ms: int | None) -> list[Span]:
    return [] if from_ms is None else [(from_ms, FOREVER_MS)]


def _is_within(moment_ms: int, spans: list[Span]) -> bool:
    return any(begin <= moment_ms < end for begin, end in spans)


def joined(spans: list[Span]) -> list[Span]:
    """Spans without seams: what ends where the next begins is one."""
    found: list[Span] = []
    for from_ms, until_ms in spans:
        if found and found[-1][1] == from_ms:
            found[-1] = (found[-1][0], until_ms)
        elif until_ms > from_ms:
            found.append((from_ms, until_ms))
    return found


def crosses_midnight(span: Span) -> bool:
    """Whether it lies on two days, UTC."""
    return span[0] // DAY_MS != max(span[0], span[1] - 1) // DAY_MS


def covers(charged: list[Span], spans: list[Span]) -> bool:
    """Whether all time that was billed is charged, and no row reaches beyond it; pauses may be in a row."""
    if not charged or not spans:
        return charged == spans
    ends_fit = (charged[0][0], charged[-1][1]) == (spans[0][0], spans[-1][1])
    return ends_fit and all(any(begin <= span[0] and span[1] <= end for begin, end in charged) for span in spans)
