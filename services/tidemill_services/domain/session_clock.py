"""A session's clock: which of its time is billed.

It runs while the model is ready and none of the session's generations has waited for a slot for more than a second. Of
both, the intervals of the last minutes are kept, so that it does not matter how late, and in which order, news comes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

FREE_WAIT_MS = 1_000  # that a generation may wait for a slot while the clock runs
_FOREVER_MS = 2**62

Interval = tuple[int, int]
"""From when until when, in milliseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Clock:
    """What is known of the clock. Intervals are in order and do not touch."""

    past_ms: int = 0  # billed before all that follows, and no longer open to news
    ready: tuple[Interval, ...] = ()  # the model was ready
    ready_since_ms: int | None = None  # and is so again since then
    waited: tuple[Interval, ...] = ()  # a generation had waited for more than a second
    waiting_since_ms: int | None = None  # and one does so since then, as processes say now

    @property
    def since_ms(self) -> int | None:
        """Since when the clock has been running; None while it stands."""
        pieces = self._pieces()
        return pieces[-1][0] if pieces and pieces[-1][1] == _FOREVER_MS else None

    @property
    def billed_ms(self) -> int:
        """What the clock ran for before `since_ms`."""
        return self.past_ms + sum(until_ms - from_ms for from_ms, until_ms in self._pieces() if until_ms < _FOREVER_MS)

    def billed_until(self, at_ms: int) -> int:
        """What the clock ran for until then; what was known before the intervals counts in any case."""
        return self.past_ms + sum(until_ms - from_ms for from_ms, until_ms in clipped(self._pieces(), until_ms=at_ms))

    def after(self, billed_ms: int) -> Iterator[Interval]:
        """Yield the intervals in which the clock ran after its first `billed_ms`; the last one may go on for ever."""
        skipped_ms = billed_ms - self.past_ms
        for from_ms, until_ms in self._pieces():
            length_ms = until_ms - from_ms
            if length_ms > skipped_ms:
                yield from_ms + max(0, skipped_ms), until_ms
            skipped_ms -= min(length_ms, max(0, skipped_ms))

    def passes_ms(self, billed_ms: int) -> int | None:
        """When the clock goes, or went, beyond its first `billed_ms`; None: it does not, as far as is known."""
        return next((from_ms for from_ms, _ in self.after(billed_ms)), None)

    def model_ready(self, at_ms: int) -> "Clock":
        """The model is ready; repeats change nothing."""
        return self if self.ready_since_ms is not None else replace(self, ready_since_ms=at_ms)

    def model_lost(self, at_ms: int) -> "Clock":
        """The model has not been ready since then; repeats change nothing."""
        if self.ready_since_ms is None:
            return self
        lasted = ((self.ready_since_ms, at_ms),) if at_ms > self.ready_since_ms else ()
        return replace(self, ready=(*self.ready, *lasted), ready_since_ms=None)

    def waits_ended(self, waits: Iterable[Interval]) -> "Clock":
        """Generations had waited for more than a second in these times; repeats change nothing."""
        return replace(self, waited=merged((*self.waited, *waits)))

    def stopped(self, at_ms: int) -> "Clock":
        """It will never run again, nor did it after that moment. What it ran for can no longer change."""
        return Clock(past_ms=self.past_ms, ready=clipped(self._pieces(), until_ms=at_ms))

    def without_past(self, before_ms: int) -> "Clock":
        """The same without the intervals that ended before that moment: news of that time comes too late."""
        ended = [until_ms for _, until_ms in (*self.ready, *self.waited) if until_ms <= before_ms]
        if not ended:
            return self
        from_ms = max(ended)
        return Clock(
            past_ms=self.billed_until(from_ms),
            ready=clipped(self.ready, from_ms=from_ms),
            ready_since_ms=None if self.ready_since_ms is None else max(self.ready_since_ms, from_ms),
            waited=clipped(self.waited, from_ms=from_ms),
            waiting_since_ms=self.waiting_since_ms,
        )

    def _pieces(self) -> Sequence[Interval]:
        """When the clock ran, and runs as far as is known."""
        ready = self.ready if self.ready_since_ms is None else (*self.ready, (self.ready_since_ms, _FOREVER_MS))
        if self.waiting_since_ms is None and not self.waited:
            return ready
        open_wait = () if self.waiting_since_ms is None else ((self.waiting_since_ms, _FOREVER_MS),)
        return _without(ready, merged((*self.waited, *open_wait)))


def merged(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Return the times that are in any of the intervals, in order."""
    found: list[Interval] = []
    for from_ms, until_ms in sorted(intervals):
        if found and from_ms <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], until_ms))
        elif from_ms < until_ms:
            found.append((from_ms, until_ms))
    return tuple(found)


def clipped(intervals: Iterable[Interval], *, from_ms: int = 0, until_ms: int = _FOREVER_MS) -> tuple[Interval, ...]:
    """Return what of the intervals lies between two moments."""
    cut = ((max(begin_ms, from_ms), min(end_ms, until_ms)) for begin_ms, end_ms in intervals)
    return tuple((begin_ms, end_ms) for begin_ms, end_ms in cut if begin_ms < end_ms)


def _without(intervals: Sequence[Interval], holes: Sequence[Interval]) -> Sequence[Interval]:
    left: list[Interval] = []
    for begin_ms, end_ms in intervals:
        at_ms = begin_ms
        for hole_begin_ms, hole_end_ms in holes:
            if hole_begin_ms >= end_ms:
                break
            if at_ms < hole_begin_ms:
                left.append((at_ms, hole_begin_ms))
            at_ms = max(at_ms, hole_end_ms)
        if at_ms < end_ms:
            left.append((at_ms, end_ms))
    return left
