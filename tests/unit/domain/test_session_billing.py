"""What of a session comes into the ledger, row by row, whatever happens and whenever it is settled."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.domain.test_session import PRICE, active, pending
from tidemill_services.domain import session as rules
from tidemill_services.domain import session_billing, session_stops
from tidemill_services.domain.ledger import EntryKind, Posting
from tidemill_services.domain.session import EndReason, Session, SessionState
from tidemill_services.domain.session_billing import DAY_MS
from tidemill_services.domain.session_limits import SessionLimits
from tidemill_services.domain.session_use import Use

MINUTE_MS = 60_000
# How long after the last one, what happens, and how long ago it was.
HAPPENINGS = st.lists(
    st.tuples(
        st.integers(0, 5 * MINUTE_MS),
        st.sampled_from(["ready", "lost", "wait", "use", "look"]),
        st.integers(0, 2 * MINUTE_MS),
    ),
    max_size=30,
)


def settle(session: Session, now_ms: int, before: Session | None = None) -> tuple[Session, list[Posting]]:
    """As `session_funds.settle` does, with plenty of credits."""
    certain_ms = session_stops.certain_until_ms(session, now_ms)
    settled, postings = session_billing.charged(session, (before or session).clock, now_ms, certain_ms)
    return replace(session_billing.without_past(settled, now_ms), held_microcredits=10**12), postings


def play(begin_ms: int, happenings: list[tuple[int, str, int]]) -> tuple[Session, list[Posting]]:
    """Let a session live, be stopped and end; return it with its rows."""
    limits = SessionLimits(max_duration_ms=30 * DAY_MS, idle_timeout_ms=DAY_MS)
    session, now_ms, rows = pending(create_ms=begin_ms, limits=limits), begin_ms, []
    for gap_ms, happening, ago_ms in happenings:
        now_ms += gap_ms
        if happening == "ready":
            session = rules.model_ready(session, now_ms)
        elif happening == "lost":
            session = rules.model_lost(session, now_ms - ago_ms)
        elif happening == "wait":
            session = rules.waits_ended(session, [(now_ms - ago_ms, now_ms - ago_ms // 2)])
        elif happening == "use":
            session = rules.used(session, Use(1, ago_ms, 7))
        session, new_rows = settle(session, now_ms)
        rows += new_rows
    session, new_rows = settle(rules.stopped(session, EndReason.STOPPED, now_ms), now_ms)
    rows += new_rows
    session = rules.used(session, Use(1, 2, 3))  # in the drain
    if session.state is SessionState.STOPPING:
        session = rules.drained(session)
    session, new_rows = settle(session, now_ms + 1_000)
    return session, rows + new_rows


@pytest.mark.rule("S8")
@given(st.integers(DAY_MS, 3 * DAY_MS), HAPPENINGS)
def test_the_rows_of_a_session_add_up_to_its_bill_and_its_use(begin_ms: int, happenings: list):
    session, rows = play(begin_ms, happenings)
    bill = rules.bill(session, 0)
    assert sum(row.used.billed_seconds for row in rows) == bill.billed_seconds
    assert -sum(row.amount_microcredits for row in rows) == bill.cost_microcredits
    assert session.settled_use == session.use
    assert session.use.num_generations == 1 + sum(happening == "use" for _, happening, _ in happenings)
    for name in ("num_generations", "prompt_tokens", "completion_tokens"):
        assert sum(getattr(row.used, name) for row in rows) == getattr(session.use, name)
    for row in rows:
        assert row.kind in (EntryKind.SESSION_CHARGE, EntryKind.REFUND)
        assert (row.amount_microcredits <= 0) == (row.kind is EntryKind.SESSION_CHARGE) or not row.amount_microcredits
        assert row.used.from_ms <= row.used.until_ms
        if row.kind is EntryKind.SESSION_CHARGE:
            assert row.used.from_ms // DAY_MS == max(row.used.from_ms, row.used.until_ms - 1) // DAY_MS
            assert row.used.billed_seconds * 1_000 < row.used.until_ms - row.used.from_ms + 1_000
    assert settle(session, begin_ms + 10 * DAY_MS)[1] == []


@pytest.mark.rule("S11")
def test_a_running_clock_is_charged_a_minute_late_and_a_minute_at_a_time():
    session = active()
    due_ms = 5_000 + 2 * MINUTE_MS
    assert session_billing.next_settlement_ms(session) == due_ms
    assert settle(session, due_ms - 1)[1] == []
    session, (row,) = settle(session, due_ms)
    assert (row.used.from_ms, row.used.until_ms) == (5_000, 65_000)
    assert (row.used.billed_seconds, row.amount_microcredits) == (60, -60 * PRICE)
    assert session_billing.next_settlement_ms(session) == due_ms + MINUTE_MS


def test_pauses_are_in_a_row_and_not_billed_and_make_no_row_of_their_own():
    session = active()
    for begin_ms in (10_000, 20_000, 30_000):
        session = rules.waits_ended(session, [(begin_ms, begin_ms + 5_000)])
        session, rows = settle(session, begin_ms + 6_000)
        assert rows == []
    session, (row,) = settle(session, 5_000 + 2 * MINUTE_MS)
    assert (row.used.from_ms, row.used.until_ms, row.used.billed_seconds) == (5_000, 65_000, 45)


def test_what_was_billed_before_the_clock_stood_still_is_charged_in_its_time():
    session = rules.model_lost(active(), 15_000)
    due_ms = session_billing.next_settlement_ms(session)
    assert due_ms == 5_000 + 2 * MINUTE_MS
    session, (row,) = settle(session, due_ms)
    assert (row.used.from_ms, row.used.until_ms, row.used.billed_seconds) == (5_000, 15_000, 10)
    assert session_billing.next_settlement_ms(session) is None


def test_what_is_known_so_late_that_it_was_charged_is_given_back():
    session, _ = settle(active(), 5_000 + 2 * MINUTE_MS)
    lost = rules.model_lost(session, 5_000 + 20_000)
    lost, (row,) = settle(lost, 5_000 + 2 * MINUTE_MS + 1_000, session)
    assert row.kind is EntryKind.REFUND
    assert (row.used.from_ms, row.used.until_ms) == (25_000, 65_000)
    assert (row.used.billed_seconds, row.amount_microcredits) == (-40, 40 * PRICE)
    assert lost.settled_ms == 20_000


@pytest.mark.rule("S4")
def test_what_ran_in_the_drain_has_a_row_that_costs_nothing():
    session, _ = settle(rules.stopped(active(), EndReason.STOPPED, 8_500), 8_500)
    session, rows = settle(rules.used(session, Use(1, 20, 30)), 9_000)
    assert rows == []
    session, (row,) = settle(rules.drained(session), 10_000)
    assert (row.amount_microcredits, row.used.billed_seconds, row.used.completion_tokens) == (0, 0, 30)
    assert (row.used.from_ms, row.used.until_ms) == (8_500, 8_500)
    session, (late,) = settle(rules.used(session, Use(1, 2, 3)), 60_000)
    assert (late.amount_microcredits, late.used.prompt_tokens) == (0, 2)
