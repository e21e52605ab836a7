"""What of a session's time is billed, against a count of single milliseconds."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.domain.test_session import active, ended, pending, stopping
from tidemill_services.domain import session as rules
from tidemill_services.domain import session_stops
from tidemill_services.domain.session import EndReason, Session
from tidemill_services.domain.session_clock import Clock, merged
from tidemill_services.domain.session_limits import SessionLimits

END_MS = 120

# Of one process: from when until when a generation had waited for too long, and how late it tells so.
WAITS = st.lists(st.tuples(st.integers(0, END_MS), st.integers(1, 40), st.integers(0, 30), st.integers(0, 30)))


@dataclass
class Mill:
    """A model that comes and goes, and processes in which generations wait; `hear` tells the clock what they tell."""

    changes: list[int]  # when the model becomes ready, is lost, becomes ready ...
    processes: list[list[tuple[int, int, int, int]]]
    stop_ms: int
    open_waits: dict[int, int] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    def waits(self) -> list[list[tuple[int, int]]]:
        """The waits of each process: one after the other."""
        found = []
        for process in self.processes:
            at_ms, waits = 0, []
            for gap_ms, length_ms, _, _ in process:
                waits.append((at_ms + gap_ms, at_ms + gap_ms + length_ms))
                at_ms = waits[-1][1] + 1
            found.append(waits)
        return found

    def counted_ms(self) -> int:
        """Look at each millisecond by itself."""
        waited = {ms for waits in self.waits() for from_ms, until_ms in waits for ms in range(from_ms, until_ms)}
        is_ready = [sum(change <= ms for change in self.changes) % 2 == 1 for ms in range(self.stop_ms)]
        return sum(is_ready[ms] and ms not in waited for ms in range(self.stop_ms))

    def run(self, *, forgets: bool) -> int:
        """Let the clock hear it in the order in which it is told; return what it ran for until the stop."""
        news = [(at_ms, 0, 0, None) for at_ms in self.changes if at_ms < self.stop_ms]
        for number, (process, waits) in enumerate(zip(self.processes, self.waits(), strict=True)):
            told_ms = 0
            for (_, _, late_ms, end_late_ms), (from_ms, until_ms) in zip(process, waits, strict=True):
                told_ms = max(told_ms, from_ms + late_ms)
                if told_ms < until_ms:
                    news.append((told_ms, 1, number, (from_ms, None)))
                told_ms = max(told_ms, until_ms + end_late_ms)
                news.append((told_ms, 2, number, (from_ms, until_ms)))
        for at_ms, kind, number, wait in sorted(news, key=lambda each: each[:3]):
            # What is told after the stop comes too late for the final bill: here it is told just before.
            self._hear(at_ms, kind, number, wait)
            first_untold = min((each[3][0] for each in news if each[3] and each[0] >= at_ms), default=at_ms)
            if forgets:
                self.clock = self.clock.without_past(min(first_untold, at_ms, self.stop_ms))
        return self.clock.stopped(self.stop_ms).billed_ms

    def _hear(self, at_ms: int, kind: int, number: int, wait: tuple[int, int | None] | None) -> None:
        if kind == 0:
            is_ready = self.clock.ready_since_ms is not None
            self.clock = self.clock.model_lost(at_ms) if is_ready else self.clock.model_ready(at_ms)
            return
        assert wait is not None
        if wait[1] is None:
            self.open_waits[number] = wait[0]
        else:
            self.open_waits.pop(number, None)
            self.clock = self.clock.waits_ended([(wait[0], wait[1])])
        self.clock = replace(self.clock, waiting_since_ms=min(self.open_waits.values(), default=None))


MILLS = st.builds(
    Mill,
    changes=st.lists(st.integers(0, END_MS), unique=True, max_size=6).map(sorted),
    processes=st.lists(WAITS.map(lambda waits: waits[:4]), max_size=3),
    stop_ms=st.integers(0, END_MS),
)


@pytest.mark.rule("S5")
@given(MILLS)
def test_every_millisecond_with_the_model_and_without_a_long_wait_is_billed_and_no_other(mill: Mill):
    assert mill.run(forgets=False) == mill.counted_ms()


@given(MILLS)
def test_what_is_forgotten_of_the_past_changes_nothing(mill: Mill):
    assert mill.run(forgets=True) == mill.counted_ms()


@given(MILLS, st.integers(0, END_MS), st.integers(0, END_MS))
def test_time_after_some_billed_milliseconds_adds_up_to_the_rest(mill: Mill, skipped_ms: int, at_ms: int):
    mill.run(forgets=False)
    clock = replace(mill.clock, waiting_since_ms=None).model_lost(END_MS)
    rest = sum(until_ms - from_ms for from_ms, until_ms in clock.after(skipped_ms))
    assert rest == max(0, clock.billed_ms - skipped_ms)
    assert clock.billed_until(at_ms) == replace(clock).stopped(at_ms).billed_ms


def test_intervals_that_touch_or_overlap_are_one():
    assert merged([(5, 7), (1, 3), (3, 4), (6, 9), (8, 8)]) == ((1, 4), (5, 9))


def waiting(session: Session, since_ms: int) -> Session:
    return replace(session, clock=replace(session.clock, waiting_since_ms=since_ms))


@pytest.mark.rule("S5")
def test_the_clock_stands_while_a_generation_has_waited_for_more_than_a_second():
    session = waiting(active(), 7_000)
    assert session.clock_since_ms is None
    assert rules.bill(session, 60_000).billed_ms == 2_000
    assert rules.bill(waiting(rules.model_ready(pending(), 8_000), 7_000), 60_000).billed_ms == 0


@pytest.mark.rule("S5")
def test_a_stop_while_a_generation_waits_bills_until_its_wait_was_too_long():
    session = rules.stopped(waiting(active(), 7_000), EndReason.STOPPED, 9_000)
    assert rules.bill(session, 99_000).billed_ms == 2_000


def test_a_wait_that_is_told_late_is_taken_off_and_never_more_than_was_billed():
    session = rules.waits_ended(active(), [(1_000, 6_000), (7_000, 8_000)])
    assert rules.bill(session, 9_000).billed_ms == 2_000
    session = rules.waits_ended(session, [(0, 9_000), (0, 9_000)])
    assert rules.bill(session, 9_000).billed_ms == 0


@pytest.mark.parametrize("make", [stopping, ended])
def test_what_is_told_after_the_stop_changes_no_bill(make):
    assert rules.waits_ended(make(), [(0, 60_000)]) == make()


def test_limits_on_money_are_reached_later_by_what_was_waited():
    limited = replace(active(), limits=SessionLimits(max_spend_microcredits=3 * 1_250))
    assert session_stops.next_automatic_stop(limited, 6_000).due_ms == 8_000
    waited = rules.waits_ended(limited, [(6_000, 6_500)])
    assert session_stops.next_automatic_stop(waited, 7_000).due_ms == 8_500
    stands = session_stops.next_automatic_stop(waiting(waited, 7_000), 7_500)
    assert stands.reason is not EndReason.MAX_SPEND
