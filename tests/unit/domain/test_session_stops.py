"""When a session ends by itself, and why."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.domain.test_session import PRICE, SESSIONS, active, pending
from tidemill_services.domain import session as rules
from tidemill_services.domain import session_stops as stops
from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.domain.session import Activity, EndReason, Session, SessionState
from tidemill_services.domain.session_clock import Clock
from tidemill_services.domain.session_limits import GivenLimits, SessionLimits
from tidemill_services.domain.session_stops import AutomaticStop, SessionWarning

CREATED_MS, STARTED_MS = 1_000, 5_000
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
NOW_MS = STARTED_MS + 10 * MINUTE_MS
LIMITS = SessionLimits(idle_timeout_ms=15 * MINUTE_MS, max_duration_ms=HOUR_MS)
RUNS = Activity(NOW_MS, NOW_MS + 6_000)


def at(due_ms: int, reason: EndReason, end_ms: int | None = None) -> AutomaticStop:
    return AutomaticStop(due_ms, reason, due_ms if end_ms is None else end_ms)


def spends(microcredits: int, session: Session | None = None) -> Session:
    return replace(session or active(), limits=replace(LIMITS, max_spend_microcredits=microcredits))


def held(*signs_ms: int, session: Session | None = None, silent: bool = False) -> Session:
    """A session with a holder for each last sign of life, and perhaps one that gives none."""
    signs = {f"h{number}": sign_ms for number, sign_ms in enumerate(signs_ms)}
    holders = (*signs, "key") if silent else tuple(signs)
    limits = SessionLimits(idle_timeout_ms=HOUR_MS)
    return replace(session or active(), holders=holders, signs=signs, limits=limits)


@pytest.mark.rule("S16")
@pytest.mark.parametrize(
    ("session", "stop"),
    [
        (active(), at(STARTED_MS + 15 * MINUTE_MS, EndReason.IDLE)),
        (replace(active(), activity=Activity(STARTED_MS + 1)), at(STARTED_MS + 1 + 15 * MINUTE_MS, EndReason.IDLE)),
        (replace(active(), activity=Activity(CREATED_MS)), at(STARTED_MS + 15 * MINUTE_MS, EndReason.IDLE)),
        (replace(active(), activity=RUNS, limits=LIMITS), at(STARTED_MS + HOUR_MS, EndReason.MAX_DURATION)),
        (replace(active(), activity=Activity(NOW_MS - 1, NOW_MS)), at(NOW_MS - 1 + 15 * MINUTE_MS, EndReason.IDLE)),
        (rules.model_lost(active(), 6_000), at(STARTED_MS + 15 * MINUTE_MS, EndReason.IDLE)),
        (pending(limits=LIMITS), at(CREATED_MS + HOUR_MS, EndReason.MAX_DURATION)),
        (spends(3 * PRICE), at(STARTED_MS + 3_000, EndReason.MAX_SPEND)),
        (spends(4 * PRICE - 1), at(STARTED_MS + 3_000, EndReason.MAX_SPEND)),
        (replace(spends(3 * PRICE), activity=RUNS), at(STARTED_MS + 3_000, EndReason.MAX_SPEND)),
        (spends(3 * PRICE, pending()), at(CREATED_MS + HOUR_MS, EndReason.MAX_DURATION)),
        (spends(3 * PRICE, rules.model_lost(active(), 6_000)), at(STARTED_MS + 15 * MINUTE_MS, EndReason.IDLE)),
        (
            spends(3 * PRICE, rules.model_ready(rules.model_lost(active(), 6_000), 9_000)),
            at(11_000, EndReason.MAX_SPEND),
        ),
        (replace(spends(1), price_microcredits_per_second=0), at(STARTED_MS + 15 * MINUTE_MS, EndReason.IDLE)),
        (held(7_000), at(607_000, EndReason.LOST, 67_000)),
        (held(7_000, 9_000), at(609_000, EndReason.LOST, 69_000)),
        (held(7_000, silent=True), at(STARTED_MS + HOUR_MS, EndReason.IDLE)),
        (
            replace(held(7_000), activity=Activity(60_000)),
            at(660_000, EndReason.LOST, 120_000),
        ),
        (replace(held(7_000), activity=RUNS), at(STARTED_MS + 43_200_000, EndReason.MAX_DURATION)),
        (held(1_000, session=pending()), at(601_000, EndReason.LOST, 61_000)),
        (held(1_000, session=rules.model_ready(pending(), 590_000)), at(601_000, EndReason.LOST, 590_000)),
        (SESSIONS[SessionState.STOPPING](), None),
        (SESSIONS[SessionState.ENDED](), None),
    ],
)
def test_the_next_automatic_stop_is_the_first_of_its_limits(session: Session, stop: AutomaticStop | None):
    assert stops.next_automatic_stop(session, NOW_MS) == stop


@pytest.mark.rule("S16")
@pytest.mark.parametrize(
    ("session", "now_ms", "billed_ms", "reason"),
    [
        (spends(3 * PRICE), NOW_MS, 3_000, EndReason.MAX_SPEND),
        (active(), STARTED_MS + 30 * MINUTE_MS, 15 * MINUTE_MS, EndReason.IDLE),
        (active(), STARTED_MS + 30 * HOUR_MS, 15 * MINUTE_MS, EndReason.IDLE),
        (held(7_000), NOW_MS + MINUTE_MS, 62_000, EndReason.LOST),
        (pending(limits=LIMITS), CREATED_MS + 2 * HOUR_MS, 0, EndReason.MAX_DURATION),
        (rules.model_lost(active(), 6_000), STARTED_MS + HOUR_MS, 1_000, EndReason.IDLE),
    ],
)
def test_a_stop_is_billed_to_the_moment_of_its_limit_however_late_it_is_noticed(
    session: Session, now_ms: int, billed_ms: int, reason: EndReason
):
    ended = stops.settled(session, now_ms, holders_are_heard=True)
    assert (ended.end_reason, ended.billed_ms, ended.is_open) == (reason, billed_ms, False)
    assert ended.end_ms <= now_ms
    assert stops.bill_now(session, now_ms).billed_ms == billed_ms
    assert stops.stopped(session, EndReason.STOPPED, now_ms) == ended


def test_before_its_limits_a_session_stays_as_it_is_and_a_stop_is_the_callers():
    assert stops.settled(active(), NOW_MS) == active()
    assert stops.stopped(active(), EndReason.STOPPED, NOW_MS).end_reason is EndReason.STOPPED


def test_an_idle_session_has_a_moment_of_grace_in_which_a_process_may_tell_what_began():
    due_ms = STARTED_MS + 15 * MINUTE_MS
    late_ms = due_ms + stops.IDLE_GRACE_MS
    assert stops.settled(active(), late_ms - 1).is_open
    assert stops.settled(active(), late_ms).end_ms == due_ms
    assert stops.settled(replace(active(), activity=Activity(late_ms, late_ms + 1)), late_ms).is_open
    assert stops.settled(spends(3 * PRICE), STARTED_MS + 3_000).end_reason is EndReason.MAX_SPEND


def test_nobody_is_given_up_who_could_not_be_heard():
    assert stops.settled(held(7_000), NOW_MS + MINUTE_MS).is_open
    assert stops.settled(held(7_000, NOW_MS), NOW_MS + MINUTE_MS).holders == ("h0", "h1")


@pytest.mark.rule("S17")
def test_one_lost_holder_leaves_and_the_others_keep_the_session_open():
    session = held(7_000, NOW_MS)
    assert stops.settled(session, 606_999, holders_are_heard=True).holders == ("h0", "h1")
    assert stops.settled(session, 607_000, holders_are_heard=True).holders == ("h1",)
    session = held(7_000, silent=True)
    left = stops.settled(session, 607_000, holders_are_heard=True)
    assert (left.holders, left.signs, left.is_open) == (("key",), {}, True)


def test_a_model_that_is_lost_after_a_limit_has_passed_bills_nothing_beyond_it():
    due_ms = STARTED_MS + 15 * MINUTE_MS
    assert stops.model_lost(active(), due_ms + 500).billed_ms == 15 * MINUTE_MS
    assert stops.model_lost(active(), due_ms - 500).billed_ms == 15 * MINUTE_MS - 500
    assert stops.settled(stops.model_lost(active(), due_ms - 500), NOW_MS + HOUR_MS).billed_ms == 15 * MINUTE_MS - 500


def test_a_model_that_is_lost_while_the_holders_are_silent_bills_no_more_than_their_loss_would():
    session = stops.model_lost(held(7_000), 300_000)
    assert session.billed_ms == 7_000 + 60_000 - STARTED_MS
    session = rules.model_ready(session, 400_000)
    assert stops.settled(session, NOW_MS + MINUTE_MS, holders_are_heard=True).billed_ms == session.billed_ms


def test_what_runs_is_not_idle_and_idle_time_counts_from_its_end():
    assert stops.idle_ms(replace(active(), activity=RUNS), NOW_MS) is None
    assert stops.idle_ms(replace(active(), activity=Activity(NOW_MS - 7)), NOW_MS) == 7
    assert stops.idle_ms(active(), NOW_MS) == NOW_MS - STARTED_MS
    assert stops.idle_ms(pending(), NOW_MS) is None


@pytest.mark.rule("S19")
@pytest.mark.parametrize(
    ("session", "expected"),
    [
        (replace(active(), activity=RUNS), ()),
        (active(), (SessionWarning(EndReason.IDLE, 50),)),
        (replace(active(), activity=Activity(NOW_MS - 12 * MINUTE_MS)), (SessionWarning(EndReason.IDLE, 50),)),
        (
            replace(active(), activity=RUNS, limits=replace(LIMITS, max_duration_ms=12 * MINUTE_MS)),
            (SessionWarning(EndReason.MAX_DURATION, 80),),
        ),
        (replace(spends(625 * PRICE), activity=RUNS), (SessionWarning(EndReason.MAX_SPEND, 95),)),
        (replace(spends(660 * PRICE), activity=RUNS), (SessionWarning(EndReason.MAX_SPEND, 80),)),
        (replace(held(NOW_MS - 179_999, NOW_MS)), ()),
        (replace(held(NOW_MS - 180_000, NOW_MS)), (SessionWarning(EndReason.LOST, 30, "h0"),)),
        (SESSIONS[SessionState.ENDED](), ()),
    ],
)
def test_it_warns_at_the_highest_share_that_is_reached_and_of_silent_holders(
    session: Session, expected: tuple[SessionWarning, ...]
):
    assert stops.warnings(session, NOW_MS) == expected


def test_a_new_limit_that_is_passed_already_is_refused_by_its_name():
    for limits, field in (
        (replace(LIMITS, idle_timeout_ms=9 * MINUTE_MS), "limits.idle_timeout"),
        (replace(LIMITS, max_duration_ms=9 * MINUTE_MS), "limits.max_duration"),
        (replace(LIMITS, max_spend_microcredits=9 * PRICE), "limits.max_spend_microcredits"),
    ):
        with pytest.raises(FieldInvalidError, match="is passed already") as refusal:
            stops.check_not_passed(rules.changed(active(), limits, {}), NOW_MS)
        assert refusal.value.field == field
    stops.check_not_passed(rules.changed(active(), LIMITS, {}), NOW_MS)


def test_a_new_spending_limit_below_what_was_spent_is_refused_while_the_clock_stands():
    standing = replace(active(), clock=Clock(past_ms=10_000))
    stops.check_not_passed(with_spend(standing, 10 * PRICE), NOW_MS)
    with pytest.raises(FieldInvalidError, match=r"limits.max_spend_microcredits is passed already"):
        stops.check_not_passed(with_spend(standing, 9 * PRICE), NOW_MS)


def with_spend(session: Session, max_spend_microcredits: int) -> Session:
    return rules.changed(session, replace(LIMITS, max_spend_microcredits=max_spend_microcredits), {})


def test_a_spending_limit_pays_for_a_second_at_least():
    with pytest.raises(FieldInvalidError, match="a second at least, which costs 1,250") as refusal:
        rules.changed(active(), replace(LIMITS, max_spend_microcredits=PRICE - 1), {})
    assert refusal.value.field == "limits.max_spend_microcredits"


def test_given_limits_replace_those_that_are_named_and_differ_only_by_them():
    given_limits = GivenLimits(idle_timeout_ms=1_000)
    assert given_limits.over(LIMITS) == replace(LIMITS, idle_timeout_ms=1_000)
    assert GivenLimits().over(LIMITS) == LIMITS
    assert given_limits.differ_from(LIMITS)
    assert not given_limits.differ_from(replace(LIMITS, idle_timeout_ms=1_000))
    assert not GivenLimits().differ_from(LIMITS)
    assert GivenLimits(max_spend_microcredits=5).differ_from(LIMITS)


TIMES = st.integers(10**12, 10**12 + 10_000_000)
GAPS = st.integers(0, 3_000_000)


@st.composite
def open_sessions(draw: st.DrawFn) -> tuple[Session, int]:
    """A session in any open state, and a time at which it is looked at."""
    limits = SessionLimits(
        idle_timeout_ms=draw(st.integers(1_000, 2_000_000)),
        max_duration_ms=draw(st.integers(1_000, 5_000_000)),
        max_spend_microcredits=draw(st.none() | st.integers(PRICE, 2_000 * PRICE)),
    )
    session = pending(create_ms=draw(TIMES), limits=limits, holders=("a", "b"))
    now_ms = session.create_ms
    for happening in draw(st.lists(st.sampled_from(["ready", "lost"]), max_size=4)):
        now_ms += draw(GAPS)
        session = (rules.model_ready if happening == "ready" else stops.model_lost)(session, now_ms)
    signs = {holder: now_ms - draw(GAPS) for holder in draw(st.sets(st.sampled_from("ab")))}
    last_ms = draw(st.none() | st.just(now_ms))
    activity = Activity(last_ms, None if last_ms is None else draw(st.none() | st.just(now_ms + draw(GAPS))))
    return replace(session, signs=signs, activity=activity), now_ms + draw(GAPS)


@given(open_sessions())
def test_no_bill_ever_exceeds_the_spending_limit_or_the_wall_time(found: tuple[Session, int]):
    session, now_ms = found
    after = stops.settled(session, now_ms, holders_are_heard=True)
    for bill in (rules.bill(after, now_ms), stops.bill_now(session, now_ms)):
        spend = session.limits.max_spend_microcredits
        assert spend is None or bill.cost_microcredits <= spend
        assert 0 <= bill.billed_ms <= now_ms - session.create_ms


@given(open_sessions())
def test_a_session_that_was_settled_stays_as_it_is(found: tuple[Session, int]):
    session, now_ms = found
    once = stops.settled(session, now_ms, holders_are_heard=True)
    assert stops.settled(once, now_ms, holders_are_heard=True) == once
    assert once.is_open or once.create_ms <= once.end_ms <= now_ms


@given(open_sessions(), GAPS)
def test_noticing_a_stop_later_changes_neither_its_reason_nor_its_bill(found: tuple[Session, int], later_ms: int):
    session, now_ms = found
    session = replace(session, activity=Activity(session.activity.last_ms))  # else later nobody would say that it runs
    ended = stops.settled(session, now_ms, holders_are_heard=True)
    if not ended.is_open:
        late = stops.settled(session, now_ms + later_ms, holders_are_heard=True)
        assert (late.end_reason, late.end_ms, late.billed_ms) == (ended.end_reason, ended.end_ms, ended.billed_ms)


@given(open_sessions(), GAPS)
def test_nothing_comes_before_the_next_look(found: tuple[Session, int], later_ms: int):
    session, now_ms = found
    look_ms = stops.next_look_ms(session, now_ms)
    early_ms = min(now_ms + later_ms, look_ms - 1)
    if early_ms >= now_ms:
        assert stops.settled(session, early_ms, holders_are_heard=True) == session


@given(open_sessions(), GAPS)
def test_more_activity_never_brings_a_stop_nearer(found: tuple[Session, int], gap_ms: int):
    session, now_ms = found
    session = replace(session, activity=Activity())
    used = replace(session, activity=Activity(now_ms - gap_ms))
    runs = replace(session, activity=Activity(now_ms, now_ms + 1))
    dues = [stops.next_automatic_stop(each, now_ms).due_ms for each in (session, used, runs)]
    assert dues == sorted(dues)
