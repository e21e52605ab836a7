"""Sessions that end by themselves, as the client sees them: limits, the live meter, signs of life."""

import asyncio
import threading
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

import tidemill
from tests.unit.client.mill import KEY, Mill, Refusal
from tidemill import open_session
from tidemill.v1 import session_pb2

HEARTBEAT = session_pb2.Session.LIVENESS_HEARTBEAT


def test_limits_and_labels_go_along_with_the_start(client: tidemill.Client, mill: Mill) -> None:
    session = client.start_session(
        idle_timeout=timedelta(minutes=1), max_spend_microcredits=5_000_000, labels={"team": "ebb"}
    )
    (request,) = mill.requests["StartSession"]
    assert not request.limits.HasField("max_duration")
    assert session.limits == tidemill.Limits(timedelta(minutes=1), timedelta(hours=12), 5_000_000)
    assert session.labels == {"team": "ebb"}


def test_without_limits_nothing_is_said_of_them(client: tidemill.Client, mill: Mill) -> None:
    session = client.start_session()
    assert not mill.requests["StartSession"][0].HasField("limits")
    assert session.limits == tidemill.Limits(timedelta(minutes=15), timedelta(hours=12), None)


def test_an_update_changes_what_is_given_and_nothing_else(client: tidemill.Client, mill: Mill) -> None:
    name = client.start_session(max_spend_microcredits=7).name
    changed = client.update_session(name, idle_timeout=timedelta(seconds=90), labels={"a": "b"})
    assert changed.limits == tidemill.Limits(timedelta(seconds=90), timedelta(hours=12), 7)
    assert changed.labels == {"a": "b"}
    assert client.update_session(name, max_spend_microcredits=0).limits.max_spend_microcredits is None
    assert list(mill.requests["UpdateSession"][0].update_mask.paths) == ["limits.idle_timeout", "labels"]
    assert client.update_session(name, labels={}).labels == {}


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"idle_timeout": "15m"}, "limits.idle_timeout"),
        ({"max_spend_microcredits": 0.5}, "limits.max_spend_microcredits"),
        ({"patience": 3}, "patience"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_sent(
    client: tidemill.Client, mill: Mill, options: dict, field: str
) -> None:
    def begin(**options: object) -> None:
        with client.session(**options):
            pass

    for call in (client.start_session, begin, lambda **more: client.update_session("sessions/1", **more)):
        with pytest.raises(tidemill.FieldInvalidError) as caught:
            call(**options)
        assert caught.value.field == field
    assert mill.requests["StartSession"] == []


def test_the_meter_is_read_until_the_session_has_ended(client: tidemill.Client, mill: Mill) -> None:
    warning = session_pb2.SessionWarning(end_reason=session_pb2.Session.END_REASON_IDLE, percent=80)
    mill.meter = [
        session_pb2.SessionMeter(time_to_end=Duration(seconds=60), end_reason=session_pb2.Session.END_REASON_MAX_SPEND),
        session_pb2.SessionMeter(idle_duration=Duration(seconds=48), warnings=[warning]),
        session_pb2.SessionMeter(),
    ]
    name = client.start_session().name
    with client.watch_session(name) as readings:
        running, idle, ended = list(readings)
    assert (running.idle, running.time_to_end, running.next_end_reason) == (None, timedelta(minutes=1), "max_spend")
    assert idle.idle == timedelta(seconds=48)
    assert idle.warnings == (tidemill.SessionWarning("idle", 80, ""),)
    assert ended.session.bill.final
    with pytest.raises(tidemill.SessionNotFoundError), client.watch_session("sessions/9") as readings:
        next(readings)


@pytest.fixture
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_session, "_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(open_session, "_TRIED_AGAIN_SECONDS", 0.01)


@pytest.mark.usefixtures("_hurry")
def test_a_block_says_that_it_is_alive_until_its_end(client: tidemill.Client, mill: Mill) -> None:
    with client.session(max_duration=timedelta(hours=1)) as session:
        mill.fail_next("HeartbeatSession", *[Refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")] * 5)
        mill.wait_for("HeartbeatSession", 8)
    (start,) = mill.requests["StartSession"]
    assert (start.liveness, start.limits.max_duration.seconds) == (HEARTBEAT, 3600)
    beat = mill.requests["HeartbeatSession"][0]
    assert (beat.name, beat.holder) == (session.name, start.holder)
    assert session.bill.final


@pytest.mark.usefixtures("_hurry")
def test_a_block_whose_session_ended_by_itself_is_quiet_and_gets_its_bill(client: tidemill.Client, mill: Mill) -> None:
    with client.session() as session:
        client.stop_session(name=session.name, all_holders=True)
        mill.wait_for("HeartbeatSession", 1)
    assert session.bill.final


@pytest.mark.usefixtures("_hurry")
async def test_a_block_of_asyncio_says_so_too(async_client: tidemill.AsyncClient, mill: Mill) -> None:
    async with async_client.session(labels={"a": "b"}) as session:
        async with async_client.watch_session(session.name) as readings:
            reading = await anext(readings)
        assert reading.session.labels == {"a": "b"}
        changed = await async_client.update_session(session.name, idle_timeout=timedelta(seconds=5))
        assert changed.limits.idle_timeout == timedelta(seconds=5)
    async with async_client.session() as session:
        await asyncio.to_thread(mill.wait_for, "HeartbeatSession", 3)
    assert session.bill.final
    assert {request.liveness for request in mill.requests["StartSession"]} == {HEARTBEAT}


@pytest.mark.usefixtures("_hurry")
def test_a_client_that_is_closed_while_its_block_is_about_to_say_so_leaves_no_error(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_about_to, is_closed = threading.Event(), threading.Event()
    beat = open_session.OpenSession._beat

    def late(self: open_session.OpenSession):
        is_about_to.set()
        assert is_closed.wait(60)
        return beat(self)

    monkeypatch.setattr(open_session.OpenSession, "_beat", late)
    with tidemill.Client(KEY, target=mill.target) as client:
        with client.session() as session:
            assert is_about_to.wait(60)
        (holder,) = {request.holder for request in mill.requests["StartSession"]}
        (speaker,) = [thread for thread in threading.enumerate() if thread.name == f"heartbeat-{holder}"]
    is_closed.set()
    speaker.join()
    assert session.bill.final
    assert mill.requests["HeartbeatSession"] == []


@pytest.mark.usefixtures("_hurry")
async def test_an_asyncio_client_that_is_closed_within_its_block_leaves_no_error_of_its_heartbeat(mill: Mill) -> None:
    client = tidemill.AsyncClient(KEY, target=mill.target)
    session = await client.session().__aenter__()
    await client.close()
    assert session._alive is not None
    await session._alive
    assert mill.requests["HeartbeatSession"] == []


def test_one_line_changes_and_watches_too(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_TARGET", mill.target)
    name = tidemill.OneLine.start_session(KEY, idle_timeout=timedelta(minutes=2)).name
    tidemill.OneLine.update_session(KEY, name, max_spend_microcredits=9)
    with tidemill.OneLine.watch_session(KEY, name) as readings:
        assert next(readings).session.limits.max_spend_microcredits == 9
