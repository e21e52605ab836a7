"""Sessions that end by themselves, through the real wire."""

import math
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

import tidemill
from tests.integration.api.conftest import MODEL, Wire, wait_until
from tests.integration.api.test_refusals import refusal_of
from tests.server_process import ServerProcess
from tidemill import open_session
from tidemill.v1 import inference_pb2, session_pb2

Session = session_pb2.Session
PATIENCE_SECONDS = 60.0


@pytest.fixture
def slow_wire(slow_wire: Wire) -> Iterator[Wire]:
    """A wire whose model is awake, so that clocks run from the start."""
    slow_wire.start()
    list(slow_wire.generate(max_tokens=1))
    slow_wire.stop()
    return slow_wire


def limits(**seconds_or_spend: float) -> session_pb2.SessionLimits:
    spend = seconds_or_spend.pop("max_spend", None)
    durations = {name: Duration(seconds=int(value)) for name, value in seconds_or_spend.items()}
    return session_pb2.SessionLimits(max_spend_microcredits=spend, **durations)


def get(wire: Wire, name: str) -> Session:
    return wire.sessions.GetSession(session_pb2.GetSessionRequest(name=name), metadata=wire.metadata)


def update(wire: Wire, name: str, *paths: str, **fields: object) -> Session:
    request = session_pb2.UpdateSessionRequest(session=Session(name=name, **fields), update_mask=FieldMask(paths=paths))
    return wire.sessions.UpdateSession(request, metadata=wire.metadata)


def watch(wire: Wire, name: str, **fields: str) -> Iterator[session_pb2.SessionMeter]:
    request = session_pb2.WatchSessionRequest(name=name, **fields)
    return wire.sessions.WatchSession(request, metadata=wire.metadata, timeout=2 * PATIENCE_SECONDS)


def wait_for_end(wire: Wire, name: str) -> Session:
    wait_until(lambda: get(wire, name).state == Session.STATE_ENDED, "an end by itself", PATIENCE_SECONDS)
    return get(wire, name)


def seconds_since_start(session: Session) -> int:
    return math.ceil(time.time() - session.start_time.ToMilliseconds() / 1000)


def wall_ms(session: Session) -> int:
    return session.end_time.ToMilliseconds() - session.start_time.ToMilliseconds()


def test_a_session_shows_its_limits_and_the_defaults_of_those_that_were_not_given(slow_wire: Wire) -> None:
    session = slow_wire.start(limits=limits(max_duration=60)).session
    assert session.limits == limits(idle_timeout=900, max_duration=60)
    assert slow_wire.start(limits=limits(max_duration=60)).already_active
    refusal = refusal_of(lambda: slow_wire.start(limits=limits(max_duration=61)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_DIFFERS")
    assert slow_wire.start().session.limits == session.limits


@pytest.mark.rule("S16")
def test_an_idle_session_ends_at_its_limit_and_is_billed_to_that_moment(slow_wire: Wire) -> None:
    name = slow_wire.start(limits=limits(idle_timeout=1)).session.name
    ended = wait_for_end(slow_wire, name)
    assert ended.end_reason == Session.END_REASON_IDLE
    assert wall_ms(ended) == 1000
    assert ended.bill.billed_milliseconds == 1000
    assert ended.bill.final
    refusal = refusal_of(lambda: list(slow_wire.generate(session=name)))
    assert refusal.reason == "SESSION_ENDED"


def test_what_runs_is_not_idle_and_the_time_counts_from_its_end(slow_wire: Wire) -> None:
    name = slow_wire.start(limits=limits(idle_timeout=3)).session.name
    last = list(slow_wire.generate(max_tokens=500))[-1]  # 2.5 seconds at least
    assert last.end.usage.completion_tokens == 500
    ended = wait_for_end(slow_wire, name)
    assert ended.end_reason == Session.END_REASON_IDLE
    assert wall_ms(ended) >= 5400
    assert ended.bill.billed_milliseconds == wall_ms(ended)


@pytest.mark.rule("S16")
def test_the_longest_duration_ends_it_whatever_runs_and_the_text_until_then_is_kept(slow_wire: Wire) -> None:
    session = slow_wire.start().session
    stream = slow_wire.generate(max_tokens=1000)  # 5 seconds at least
    next(stream)
    soon = seconds_since_start(session) + 4
    update(slow_wire, session.name, "limits.max_duration", limits=limits(max_duration=soon))
    last = list(stream)[-1]
    assert last.end.finish_reason in (
        inference_pb2.FINISH_REASON_LENGTH,
        inference_pb2.FINISH_REASON_SESSION_STOPPED,
    )
    ended = wait_for_end(slow_wire, session.name)
    assert ended.end_reason == Session.END_REASON_MAX_DURATION
    assert ended.bill.billed_milliseconds == wall_ms(ended) == soon * 1000


@pytest.mark.rule("S16")
def test_no_more_is_spent_than_the_limit_says(slow_wire: Wire) -> None:
    price = slow_wire.start().session.bill.price_microcredits_per_second
    slow_wire.stop()
    name = slow_wire.start(limits=limits(max_spend=2 * price - 1)).session.name
    readings = list(watch(slow_wire, name))
    ended = readings[-1].session
    assert ended.end_reason == Session.END_REASON_MAX_SPEND
    assert ended.bill.cost_microcredits == price
    assert max(reading.session.bill.cost_microcredits for reading in readings) == price


@pytest.mark.rule("S13")
def test_limits_and_labels_are_changed_while_it_is_open(slow_wire: Wire) -> None:
    name = slow_wire.start(labels={"team": "ebb"}, limits=limits(max_spend=10**9)).session.name
    assert update(slow_wire, name, "labels", labels={"team": "flood"}).labels == {"team": "flood"}
    changed = update(slow_wire, name, "limits.max_duration", limits=limits(max_duration=120, idle_timeout=7))
    assert changed.limits == limits(idle_timeout=900, max_duration=120, max_spend=10**9)
    assert update(slow_wire, name, "limits").limits == limits(idle_timeout=900, max_duration=43200)
    assert get(slow_wire, name).labels == {"team": "flood"}
    time.sleep(1.1)
    refusal = refusal_of(lambda: update(slow_wire, name, "limits.max_duration", limits=limits(max_duration=1)))
    assert (refusal.reason, refusal.field) == ("FIELD_INVALID", "limits.max_duration")
    soon = seconds_since_start(get(slow_wire, name)) + 4
    update(slow_wire, name, "limits.idle_timeout", limits=limits(idle_timeout=soon))
    assert wait_for_end(slow_wire, name).end_reason == Session.END_REASON_IDLE
    refusal = refusal_of(lambda: update(slow_wire, name, "labels"))
    assert refusal.reason == "SESSION_ENDED"


@pytest.mark.rule("S20")
@pytest.mark.rule("S19")
def test_the_meter_runs_warns_says_what_comes_next_and_ends_with_the_final_bill(slow_wire: Wire) -> None:
    name = slow_wire.start(limits=limits(idle_timeout=4, max_duration=60)).session.name
    *running, last = watch(slow_wire, name)
    assert [reading.sequence_number for reading in (*running, last)] == list(range(1, len(running) + 2))
    for reading in (reading for reading in running if reading.session.state == Session.STATE_ACTIVE):
        idle_ms = reading.idle_duration.ToMilliseconds()
        assert reading.end_reason == Session.END_REASON_IDLE
        assert reading.time_to_end.ToMilliseconds() == max(0, 4000 - idle_ms)
        reached = [percent for percent in (50, 80, 95) if idle_ms >= percent * 40][-1:]
        assert list(reading.warnings) == [
            session_pb2.SessionWarning(end_reason=Session.END_REASON_IDLE, percent=percent) for percent in reached
        ]
    bills = [reading.session.bill.billed_milliseconds for reading in running]
    assert bills == sorted(bills)
    assert (last.session.state, last.session.bill.billed_milliseconds) == (Session.STATE_ENDED, 4000)
    assert not last.HasField("time_to_end")


@pytest.mark.rule("S20")
def test_a_meter_says_that_something_runs(slow_wire: Wire) -> None:
    name = slow_wire.start().session.name
    readings = watch(slow_wire, name)
    assert next(readings).HasField("idle_duration")
    is_seen = threading.Event()

    def ask_on_and_on() -> None:
        while not is_seen.is_set():
            list(slow_wire.generate(max_tokens=400))

    asking = threading.Thread(target=ask_on_and_on)
    asking.start()
    try:
        busy = next(reading for reading in readings if not reading.HasField("idle_duration"))
    finally:
        is_seen.set()
        asking.join()
    assert busy.end_reason == Session.END_REASON_MAX_DURATION
    assert next(reading for reading in readings if reading.HasField("idle_duration"))
    readings.cancel()


def test_a_holder_that_gives_signs_of_life_is_told_when_to_give_the_next(slow_wire: Wire) -> None:
    started = slow_wire.start(holder="library", liveness=Session.LIVENESS_HEARTBEAT).session
    assert started.liveness == Session.LIVENESS_HEARTBEAT
    beat = session_pb2.HeartbeatSessionRequest(name=started.name, holder="library")
    answer = slow_wire.sessions.HeartbeatSession(beat, metadata=slow_wire.metadata)
    assert answer.next_heartbeat.seconds == 20
    joined = slow_wire.start().session
    assert joined.liveness == Session.LIVENESS_NONE  # the key itself keeps it open, too, and gives none
    assert len(joined.holders) == 2
    stranger = session_pb2.HeartbeatSessionRequest(name=started.name, holder="stranger")
    refusal = refusal_of(lambda: slow_wire.sessions.HeartbeatSession(stranger, metadata=slow_wire.metadata))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_ENDED")
    assert "stranger" in refusal.message
    slow_wire.stop()
    refusal = refusal_of(lambda: slow_wire.sessions.HeartbeatSession(beat, metadata=slow_wire.metadata))
    assert refusal.reason == "SESSION_ENDED"


def test_a_session_that_ended_by_itself_makes_room_for_a_new_one(slow_wire: Wire) -> None:
    name = slow_wire.start(limits=limits(idle_timeout=1)).session.name
    wait_for_end(slow_wire, name)
    fresh = slow_wire.start()
    assert not fresh.already_active
    assert fresh.session.name != name
    listed = slow_wire.sessions.ListSessions(
        session_pb2.ListSessionsRequest(model=MODEL, page_size=2), metadata=slow_wire.metadata
    )
    assert [session.end_reason for session in listed.sessions] == [
        Session.END_REASON_UNSPECIFIED,
        Session.END_REASON_IDLE,
    ]


@pytest.mark.rule("S18")
def test_a_block_of_the_client_library_holds_a_session_by_signs_of_life_and_a_start_without(
    slow_server: ServerProcess, slow_wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_session, "_FIRST_SECONDS", 0.01)
    with (
        tidemill.Client(slow_server.api_key, target=slow_server.grpc, model=MODEL) as client,
        client.session(max_duration=timedelta(minutes=5)) as block,
    ):
        assert get(slow_wire, block.name).liveness == Session.LIVENESS_HEARTBEAT
        with client.watch_session(block.name) as readings:
            first = next(readings)
        assert first.session.limits.max_duration == timedelta(minutes=5)
        client.complete_prompt("on and on", max_tokens=3, stream=False)
        changed = client.update_session(block.name, max_spend_microcredits=10**9)
        assert changed.limits.max_spend_microcredits == 10**9
        assert client.start_session().already_active
        assert get(slow_wire, block.name).liveness == Session.LIVENESS_NONE
        assert client.stop_session().final is False
    assert block.bill.final
    assert block.session.end_reason == "stopped"
