"""The life of a session: which event is known in which state, and what it changes."""

from dataclasses import replace

import pytest

from tidemill_services.domain import session as rules
from tidemill_services.domain import session_stops
from tidemill_services.domain.errors import FieldInvalidError, SessionEndedError
from tidemill_services.domain.session import EndReason, Event, Liveness, Session, SessionState
from tidemill_services.domain.session_limits import SessionLimits
from tidemill_services.domain.session_use import Use

PRICE = 1_250


def pending(**changes: object) -> Session:
    fields = {
        "session_id": "s",
        "account_id": "a",
        "key_id": "k",
        "model": "m",
        "price_microcredits_per_second": PRICE,
        "create_ms": 1_000,
        "holders": ("h",),
        "held_microcredits": 10**12,
    }
    return Session(**(fields | changes))


def active() -> Session:
    return rules.model_ready(pending(), 5_000)


def stopping() -> Session:
    return rules.stopped(active(), EndReason.STOPPED, 8_500)


def ended() -> Session:
    return rules.drained(stopping())


SESSIONS = {
    SessionState.PENDING: pending,
    SessionState.ACTIVE: active,
    SessionState.STOPPING: stopping,
    SessionState.ENDED: ended,
}
EVENTS = {
    Event.MODEL_READY: lambda session: rules.model_ready(session, 9_000),
    Event.MODEL_LOST: lambda session: rules.model_lost(session, 9_000),
    Event.STOPPED: lambda session: rules.stopped(session, EndReason.IDLE, 9_000),
    Event.DRAINED: rules.drained,
}
STATES_AFTER = {
    (SessionState.PENDING, Event.MODEL_READY): SessionState.ACTIVE,
    (SessionState.PENDING, Event.MODEL_LOST): SessionState.PENDING,
    (SessionState.PENDING, Event.STOPPED): SessionState.ENDED,
    (SessionState.PENDING, Event.DRAINED): None,
    (SessionState.ACTIVE, Event.MODEL_READY): SessionState.ACTIVE,
    (SessionState.ACTIVE, Event.MODEL_LOST): SessionState.ACTIVE,
    (SessionState.ACTIVE, Event.STOPPED): SessionState.STOPPING,
    (SessionState.ACTIVE, Event.DRAINED): None,
    (SessionState.STOPPING, Event.MODEL_READY): None,
    (SessionState.STOPPING, Event.MODEL_LOST): None,
    (SessionState.STOPPING, Event.STOPPED): SessionState.STOPPING,
    (SessionState.STOPPING, Event.DRAINED): SessionState.ENDED,
    (SessionState.ENDED, Event.MODEL_READY): None,
    (SessionState.ENDED, Event.MODEL_LOST): None,
    (SessionState.ENDED, Event.STOPPED): SessionState.ENDED,
    (SessionState.ENDED, Event.DRAINED): SessionState.ENDED,
}


@pytest.mark.rule("S1")
def test_every_pair_of_state_and_event_is_decided():
    assert set(STATES_AFTER) == {(state, event) for state in SessionState for event in Event}


@pytest.mark.rule("S1")
@pytest.mark.parametrize(("state", "event"), STATES_AFTER, ids=lambda value: value.name)
def test_an_event_leads_to_the_listed_state_or_is_refused(state: SessionState, event: Event):
    after = STATES_AFTER[state, event]
    if after is None:
        with pytest.raises(rules.SessionTransitionError, match=f"is {state} and cannot take {event.name}"):
            EVENTS[event](SESSIONS[state]())
    else:
        assert EVENTS[event](SESSIONS[state]()).state is after


CUSTOMERS_EVENTS = {
    "join": lambda session: rules.holder_joined(session, "other", sign_ms=9_000),
    "leave": lambda session: rules.holder_left(session, "h", 9_000),
    "change": lambda session: rules.changed(session, SessionLimits(idle_timeout_ms=5_000), {"a": "b"}),
    "wait": lambda session: rules.waits_ended(session, [(5_000, 6_000)]),
    "use": lambda session: rules.used(session, Use(1, 2, 3)),
    "time": lambda session: session_stops.settled(session, 10**12, holders_are_heard=True),
}
STATES_AFTER_CUSTOMERS = {
    (SessionState.PENDING, "join"): SessionState.PENDING,
    (SessionState.PENDING, "leave"): SessionState.ENDED,
    (SessionState.PENDING, "change"): SessionState.PENDING,
    (SessionState.PENDING, "wait"): SessionState.PENDING,
    (SessionState.PENDING, "use"): SessionState.PENDING,
    (SessionState.PENDING, "time"): SessionState.ENDED,
    (SessionState.ACTIVE, "join"): SessionState.ACTIVE,
    (SessionState.ACTIVE, "leave"): SessionState.STOPPING,
    (SessionState.ACTIVE, "change"): SessionState.ACTIVE,
    (SessionState.ACTIVE, "wait"): SessionState.ACTIVE,
    (SessionState.ACTIVE, "use"): SessionState.ACTIVE,
    (SessionState.ACTIVE, "time"): SessionState.STOPPING,
    (SessionState.STOPPING, "join"): None,
    (SessionState.STOPPING, "leave"): SessionState.STOPPING,
    (SessionState.STOPPING, "change"): None,
    (SessionState.STOPPING, "wait"): SessionState.STOPPING,
    (SessionState.STOPPING, "use"): SessionState.STOPPING,
    (SessionState.STOPPING, "time"): SessionState.STOPPING,
    (SessionState.ENDED, "join"): None,
    (SessionState.ENDED, "leave"): SessionState.ENDED,
    (SessionState.ENDED, "change"): None,
    (SessionState.ENDED, "wait"): SessionState.ENDED,
    (SessionState.ENDED, "use"): SessionState.ENDED,
    (SessionState.ENDED, "time"): SessionState.ENDED,
}


@pytest.mark.rule("S1")
def test_every_pair_of_state_and_what_customers_or_time_do_is_decided():
    assert set(STATES_AFTER_CUSTOMERS) == {(state, event) for state in SessionState for event in CUSTOMERS_EVENTS}


@pytest.mark.rule("S1")
@pytest.mark.parametrize(("state", "event"), STATES_AFTER_CUSTOMERS, ids=str)
def test_what_customers_or_time_do_leads_to_the_listed_state_or_is_refused(state: SessionState, event: str):
    after = STATES_AFTER_CUSTOMERS[state, event]
    if after is None:
        with pytest.raises(SessionEndedError, match="start a new one"):
            CUSTOMERS_EVENTS[event](SESSIONS[state]())
    else:
        assert CUSTOMERS_EVENTS[event](SESSIONS[state]()).state is after


def test_each_holder_gives_signs_of_life_or_not_as_it_said_last():
    session = rules.holder_joined(active(), "library", sign_ms=6_000)
    assert (session.liveness, session.signs) == (Liveness.NONE, {"library": 6_000})  # "h" keeps it open without any
    alone = rules.holder_left(session, "h", 7_000)
    assert alone.liveness is Liveness.HEARTBEAT
    assert rules.holder_joined(alone, "library").signs == {}
    assert rules.holder_left(alone, "library", 8_000).signs == {}


@pytest.mark.rule("S12")
@pytest.mark.parametrize("state", [SessionState.STOPPING, SessionState.ENDED])
def test_a_stop_of_a_stopped_session_changes_nothing(state: SessionState):
    session = SESSIONS[state]()
    assert rules.stopped(session, EndReason.BUDGET, 60_000) == session
    assert rules.holder_left(session, "h", 60_000) == session


@pytest.mark.rule("S3")
def test_the_clock_runs_from_ready_to_the_stop():
    bill = rules.bill(stopping(), 99_000)
    assert (bill.billed_ms, bill.billed_seconds, bill.cost_microcredits) == (3_500, 4, 4 * PRICE)
    assert bill.final
    assert stopping().end_reason is EndReason.STOPPED
    assert stopping().end_ms == 8_500


@pytest.mark.rule("S4")
def test_the_drain_after_the_stop_is_free():
    assert rules.bill(ended(), 99_000) == rules.bill(stopping(), 8_500)


def test_a_running_clock_is_on_the_bill_until_now():
    bill = rules.bill(active(), 6_200)
    assert (bill.billed_ms, bill.billed_seconds, bill.final) == (1_200, 2, False)


@pytest.mark.rule("S6")
def test_a_pending_session_costs_nothing_and_ends_at_once():
    session = rules.stopped(pending(), EndReason.STOPPED, 600_000)
    assert session.state is SessionState.ENDED
    assert session.start_ms is None
    bill = rules.bill(session, 700_000)
    assert (bill.billed_ms, bill.cost_microcredits, bill.final) == (0, 0, True)


@pytest.mark.rule("S7")
def test_time_without_the_model_is_not_billed():
    session = rules.model_lost(active(), 6_000)
    assert session.state is SessionState.ACTIVE
    assert rules.bill(session, 50_000).billed_ms == 1_000
    again = rules.model_ready(session, 50_000)
    assert again.start_ms == 5_000
    assert rules.bill(again, 50_250).billed_ms == 1_250


def test_repeated_news_of_the_model_changes_nothing():
    assert rules.model_ready(active(), 7_000) == active()
    lost = rules.model_lost(active(), 6_000)
    assert rules.model_lost(lost, 7_000) == lost


def test_a_loss_before_the_clock_started_bills_nothing():
    assert rules.model_lost(active(), 4_000).billed_ms == 0


@pytest.mark.rule("S8")
def test_seconds_are_rounded_once_over_all_intervals():
    session = active()
    for start_ms in range(10_000, 20_000, 1_000):
        session = rules.model_ready(rules.model_lost(session, session.clock_since_ms + 1), start_ms)
    assert rules.bill(rules.stopped(session, EndReason.STOPPED, 19_001), 0).billed_seconds == 1


@pytest.mark.rule("S10")
def test_the_session_ends_when_the_last_holder_leaves():
    session = rules.holder_joined(active(), "other")
    assert session.holders == ("h", "other")
    session = rules.holder_left(session, "h", 6_000)
    assert (session.state, session.holders) == (SessionState.ACTIVE, ("other",))
    session = rules.holder_left(session, "other", 7_000)
    assert (session.state, session.holders, session.billed_ms) == (SessionState.STOPPING, (), 2_000)


def test_a_holder_counts_once_however_often_it_comes():
    assert rules.holder_joined(active(), "h") == active()


def test_a_holder_that_never_came_ends_nothing():
    assert rules.holder_left(active(), "stranger", 6_000) == active()


@pytest.mark.parametrize("state", [SessionState.STOPPING, SessionState.ENDED])
def test_nobody_joins_a_stopped_session(state: SessionState):
    with pytest.raises(SessionEndedError, match="start a new one"):
        rules.holder_joined(SESSIONS[state](), "late")


def test_a_clock_that_went_back_makes_no_negative_bill():
    assert rules.bill(active(), 1).billed_ms == 0
    assert rules.stopped(active(), EndReason.STOPPED, 1).billed_ms == 0


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"idle_timeout_ms": 999}, "limits.idle_timeout"),
        ({"idle_timeout_ms": 86_400_001}, "limits.idle_timeout"),
        ({"max_duration_ms": 0}, "limits.max_duration"),
        ({"max_duration_ms": 2**63}, "limits.max_duration"),
        ({"max_spend_microcredits": 0}, "limits.max_spend_microcredits"),
        ({"max_spend_microcredits": 2**63}, "limits.max_spend_microcredits"),
    ],
)
def test_limits_out_of_bounds_are_refused_by_name(limits: dict[str, int], field: str):
    with pytest.raises(FieldInvalidError, match=f"^{field} must be 1 to ") as refusal:
        SessionLimits(**limits)
    assert refusal.value.field == field


@pytest.mark.parametrize("holder", ["", "h" * 129, "a\x00b", "a\nb"])
def test_a_holder_that_cannot_be_kept_is_refused(holder: str):
    with pytest.raises(FieldInvalidError, match="128 printable") as refusal:
        rules.check_holder(holder)
    assert refusal.value.field == "holder"


@pytest.mark.parametrize(
    "labels", [{str(n): "" for n in range(17)}, {"": "x"}, {"k" * 65: "x"}, {"k": "v" * 257}], ids=len
)
def test_labels_out_of_bounds_are_refused(labels: dict[str, str]):
    with pytest.raises(FieldInvalidError, match="label") as refusal:
        rules.check_labels(labels)
    assert refusal.value.field == "labels"


def test_a_session_in_the_store_is_open_until_its_stop():
    assert [make().is_open for make in SESSIONS.values()] == [True, True, False, False]
    assert not replace(pending(), state=SessionState.ENDED).is_open
