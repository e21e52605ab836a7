"""The bill of a session against an independent trace of what happened."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill_services.domain import session as rules
from tidemill_services.domain.session import EndReason, Session, SessionState

HAPPENINGS = ("ready", "lost", "join", "leave", "stop", "look")
TRACES = st.lists(st.tuples(st.integers(0, 100_000), st.sampled_from(HAPPENINGS), st.sampled_from("abc")), max_size=40)
START_MS = 1_700_000_000_000


def play(trace: list[tuple[int, str, str]]) -> tuple[Session, int]:
    """Let the session live through a trace; return it and the time at the end."""
    now_ms = START_MS
    session = Session("s", "a", "k", "m", price_microcredits_per_second=7, create_ms=now_ms, holders=("a",))
    for gap_ms, happening, holder in trace:
        now_ms += gap_ms
        if happening == "stop":
            session = rules.stopped(session, EndReason.STOPPED, now_ms)
        elif happening == "leave":
            session = rules.holder_left(session, holder, now_ms)
        elif session.is_open and happening == "ready":
            session = rules.model_ready(session, now_ms)
        elif session.is_open and happening == "lost":
            session = rules.model_lost(session, now_ms)
        elif session.is_open and happening == "join":
            session = rules.holder_joined(session, holder)
    return session, now_ms


def trace_ms(trace: list[tuple[int, str, str]]) -> int:
    """Add up, gap by gap, the time in which the model was ready and somebody held the session."""
    ready, holders, total_ms = False, {"a"}, 0
    for gap_ms, happening, holder in trace:
        total_ms += gap_ms if ready and holders else 0
        if happening in ("ready", "lost"):
            ready = happening == "ready"
        elif happening == "join" and holders:
            holders.add(holder)
        elif happening == "leave":
            holders.discard(holder)
        elif happening == "stop":
            holders.clear()
    return total_ms


@pytest.mark.rule("S3")
@given(TRACES)
def test_the_bill_equals_the_trace(trace: list[tuple[int, str, str]]):
    session, now_ms = play(trace)
    assert rules.bill(session, now_ms).billed_ms == trace_ms(trace)


@pytest.mark.rule("S8")
@given(TRACES)
def test_never_more_is_billed_than_the_wall_time_since_the_first_start(trace: list[tuple[int, str, str]]):
    session, now_ms = play(trace)
    end_ms = now_ms if session.end_ms is None else session.end_ms
    assert 0 <= rules.bill(session, now_ms).billed_ms <= end_ms - (session.start_ms or end_ms)


@pytest.mark.rule("S4")
@given(TRACES, TRACES)
def test_nothing_that_comes_after_the_stop_changes_the_bill(before: list, after: list):
    session, now_ms = play([*before, (0, "stop", "a")])
    final = rules.bill(session, now_ms)
    later, much_later_ms = play([*before, (0, "stop", "a"), *after])
    assert final.final
    assert rules.bill(later, much_later_ms) == final


@given(TRACES)
def test_the_cost_never_shrinks_while_time_goes_on(trace: list[tuple[int, str, str]]):
    costs = []
    for length in range(len(trace) + 1):
        session, now_ms = play(trace[:length])
        costs.append(rules.bill(session, now_ms).cost_microcredits)
    assert costs == sorted(costs)


@given(TRACES)
def test_the_clock_stands_unless_the_session_is_active(trace: list[tuple[int, str, str]]):
    session, _ = play(trace)
    assert session.clock_since_ms is None or session.state is SessionState.ACTIVE
    assert bool(session.holders) == session.is_open
