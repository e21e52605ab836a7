"""An independent record of sessions: what the test itself did and saw of them, by its own clock.

A test never knows the very moment of what it did, only that it lay between its asking and its hearing of it. So each
session has bounds, between which its bill must lie.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.scale import bound
from tidemill.v1 import session_pb2

ALLOWANCE_MS = 1_000  # that a bill may differ from the trace
CRASH_ALLOWANCE_MS = 1000 * bound(1, busy=4)  # for each crash besides: a bill ends at the last sign of life


@dataclass(slots=True)
class Moment:
    """When something happened: not before `asked`, not after `heard`, in seconds of `time.monotonic`."""

    asked: float
    heard: float = math.inf


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between which a bill must lie, in milliseconds."""

    lowest_ms: float
    highest_ms: float


@dataclass(slots=True)
class _Story:
    stretches: list[tuple[Moment, Moment]] = field(default_factory=list)  # in which the clock ran
    since: Moment | None = None  # the stretch that goes on


@contextmanager
def moment() -> Iterator[Moment]:
    """What happens within the block happened between its begin and its end."""
    when = Moment(time.monotonic())
    try:
        yield when
    finally:
        when.heard = time.monotonic()


def moment_of(condition: Callable[[], bool], what: str, *, since: Moment, seconds: float = 60.0) -> Moment:
    """Wait until it is so; it came between the last look that said no, or `since`, and the first that said yes."""
    looked, end = since.asked, time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if condition():
            return Moment(looked, time.monotonic())
        assert asked < end, f"{what} did not come within {seconds:g} s"
        looked = asked
        time.sleep(0.02)


class Trace:
    """What is known of any number of sessions."""

    def __init__(self) -> None:
        self._stories: defaultdict[str, _Story] = defaultdict(_Story)

    @property
    def names(self) -> tuple[str, ...]:
        """The sessions whose clock ever ran."""
        return tuple(self._stories)

    def runs(self, name: str, since: Moment) -> None:
        """The session's clock began to run, or went on. Where it runs already, nothing changes."""
        story = self._stories[name]
        story.since = story.since or since

    def stands(self, name: str, since: Moment) -> None:
        """The session's clock stopped, for a while or for good."""
        story = self._stories[name]
        if story.since is not None:
            story.stretches.append((story.since, since))
            story.since = None

    def bounds(self, name: str, now: Moment | None = None) -> Bounds:
        """Between what the session's bill must lie; of one that runs, at the moment `now`."""
        story = self._stories[name]
        stretches = [*story.stretches, *([(story.since, now)] if story.since and now else [])]
        lowest = sum(max(0.0, end.asked - begin.heard) for begin, end in stretches)
        highest = sum(end.heard - begin.asked for begin, end in stretches)
        return Bounds(lowest * 1000, highest * 1000)

    def check(self, session: session_pb2.Session, now: Moment | None = None, *, num_crashes: int = 0) -> float:
        """Fail unless the session's bill is what the trace says; return by how many milliseconds it is off.

        A second is allowed, and one more for each crash; on a busy machine the last sign of life lies further back.
        """
        bill, bounds = session.bill, self.bounds(session.name, now)
        allowance_ms = ALLOWANCE_MS + CRASH_ALLOWANCE_MS * num_crashes
        off_ms = max(bounds.lowest_ms - bill.billed_milliseconds, bill.billed_milliseconds - bounds.highest_ms, 0.0)
        assert off_ms <= allowance_ms, (
            f"{session.name} is billed {bill.billed_milliseconds} ms, the trace says {bounds}"
        )
        assert bill.final == (now is None)
        assert bill.billed_seconds == -(-bill.billed_milliseconds // 1000)
        assert bill.cost_microcredits == bill.billed_seconds * bill.price_microcredits_per_second
        return off_ms
