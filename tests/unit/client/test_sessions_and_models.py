"""Sessions and models through the blocking client."""

import socket
import threading
from contextlib import suppress
from datetime import timedelta

import grpc
import pytest

import tidemill
from tests.unit.client.mill import KEY, MODEL, PRICE, Mill, Refusal
from tidemill import channel
from tidemill.v1 import model_pb2, session_pb2


def test_a_session_starts_and_stops_with_its_final_bill(client: tidemill.Client, mill: Mill) -> None:
    session = client.start_session("tide-nano")
    assert (session.name, session.model, session.state) == ("sessions/1", MODEL, "pending")
    assert session.is_open
    assert session.start_time is None
    assert session.create_time is not None
    assert session.create_time.utcoffset() == timedelta(0)
    bill = client.stop_session("tide-nano")
    assert (bill.session, bill.model, bill.final) == ("sessions/1", MODEL, True)
    assert (bill.billed_milliseconds, bill.billed_seconds, bill.cost_microcredits) == (2_500, 3, 3 * PRICE)
    assert mill.requests["StartSession"][0].liveness == session_pb2.Session.LIVENESS_NONE


def test_starting_and_stopping_again_changes_nothing(client: tidemill.Client) -> None:
    first, second = client.start_session(), client.start_session()
    assert (first.already_active, second.already_active) == (False, True)
    assert first.name == second.name
    assert client.stop_session() == client.stop_session()


def test_start_and_stop_speak_for_the_key_so_that_any_program_with_it_can_stop(mill: Mill) -> None:
    with tidemill.Client(KEY, target=mill.target) as one, tidemill.Client(KEY, target=mill.target) as other:
        one.start_session()
        assert other.stop_session().final


def test_a_with_block_holds_a_session_of_its_own_and_leaves_others_open(client: tidemill.Client, mill: Mill) -> None:
    with client.session("tide-nano") as outer:
        with client.session("tide-nano") as inner:
            assert inner.name == outer.name
            assert len(mill.sessions[outer.name].holders) == 2
        assert not inner.bill.final
        assert client.complete_prompt("hello", stream=False) == "You said: hello"
    assert outer.bill.final
    assert outer.session.end_reason == "stopped"


def test_a_session_stops_when_its_block_fails(client: tidemill.Client, mill: Mill) -> None:
    with pytest.raises(ZeroDivisionError), client.session():
        1 / 0  # noqa: B018
    assert mill.sessions["sessions/1"].bill.final


def test_a_session_can_be_stopped_by_name_whoever_holds_it(client: tidemill.Client) -> None:
    with client.session() as session:
        bill = client.stop_session(name=session.name, all_holders=True)
        assert bill.final
    assert session.bill == bill


def test_sessions_are_listed_newest_first_over_pages(client: tidemill.Client) -> None:
    for _ in range(5):
        client.start_session()
        client.stop_session()
    client.start_session()
    assert [one.name for one in client.list_sessions()] == [f"sessions/{number}" for number in (6, 5, 4, 3, 2, 1)]
    assert [one.name for one in client.list_sessions(limit=3)] == ["sessions/6", "sessions/5", "sessions/4"]
    assert [one.name for one in client.list_sessions(open_only=True)] == ["sessions/6"]


def test_a_session_is_fetched_by_name(client: tidemill.Client) -> None:
    client.start_session()
    assert client.get_session("sessions/1").name == "sessions/1"
    with pytest.raises(tidemill.SessionNotFoundError):
        client.get_session("sessions/2")


def test_the_clients_model_is_the_default_of_every_call(mill: Mill) -> None:
    with tidemill.Client(KEY, target=mill.target, model="tide-nano") as client:
        client.start_session()
        client.get_model()
        client.complete_prompt("hello", stream=False)
        client.complete_prompt("hello", stream=False, model="models/tide-nano")
    assert mill.requests["StartSession"][0].model == "tide-nano"
    assert mill.requests["GetModel"][0].name == "tide-nano"
    assert [one.model for one in mill.requests["Complete"]] == ["tide-nano", "models/tide-nano"]


def test_models_are_read_with_their_prices(client: tidemill.Client) -> None:
    (model,) = client.list_models()
    assert model == client.get_model("tide-nano")
    assert (model.name, model.state, model.context_length) == (MODEL, "stopped", 512)
    assert model.prices.session_microcredits_per_second == PRICE
    assert model.roles == ("system", "user", "assistant")
    assert model.time_to_ready is None


def test_model_is_running_answers_at_once(client: tidemill.Client, mill: Mill) -> None:
    assert client.model_is_running() is False
    mill.model.state = model_pb2.Model.STATE_READY
    assert client.model_is_running() is True
    assert mill.requests["StartModel"] == []


def test_waiting_wakes_a_resting_model_and_reports_its_progress(client: tidemill.Client, mill: Mill) -> None:
    seen: list[tidemill.Progress] = []
    model = client.wait_until_model_running(timeout=60, on_progress=seen.append)
    assert model.is_running
    assert len(mill.requests["StartModel"]) == 1
    assert (seen[0].state, seen[-1].state, seen[-1].fraction) == ("stopped", "ready", 1.0)


def test_starting_with_wait_reports_each_phase(client: tidemill.Client) -> None:
    seen: list[tidemill.Progress] = []
    client.start_model(wait=True, on_progress=seen.append)
    assert [(one.state, one.phase, one.fraction) for one in seen] == [
        ("queued", "", 0.0),
        ("starting", "launching", 0.1),
        ("starting", "loading", 0.6),
        ("ready", "", 1.0),
    ]


def test_waiting_for_a_running_model_returns_at_once(client: tidemill.Client, mill: Mill) -> None:
    mill.model.state = model_pb2.Model.STATE_READY
    assert client.wait_until_model_running().is_running
    assert mill.requests["StartModel"] == []


def test_waiting_raises_when_the_model_fails_to_start(client: tidemill.Client, mill: Mill) -> None:
    mill.model.failure = "The file model.onnx is missing."
    mill.start_views = [(model_pb2.Model.STATE_FAILED, model_pb2.Model.PHASE_UNSPECIFIED, 0.0)]
    with pytest.raises(tidemill.ModelFailedError, match=r"model\.onnx is missing"):
        client.wait_until_model_running()


def test_waiting_raises_when_somebody_stops_the_model(client: tidemill.Client, mill: Mill) -> None:
    mill.start_views = [(state, 0, 0.0) for state in (model_pb2.Model.STATE_STARTING, model_pb2.Model.STATE_STOPPED)]
    with pytest.raises(tidemill.ModelColdError, match="was stopped while it was waking"):
        client.wait_until_model_running()


def test_waiting_gives_up_at_its_timeout(client: tidemill.Client, mill: Mill) -> None:
    mill.fail_next("StartModel", *[Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")])
    with pytest.raises(tidemill.DeadlineExceededError):
        client.wait_until_model_running(timeout=0.3)


def test_start_model_waits_only_when_asked_to(client: tidemill.Client) -> None:
    assert client.start_model("tide-nano").state == "queued"
    assert client.start_model("tide-nano", wait=True).is_running
    assert client.stop_model("tide-nano").state == "stopped"


def test_a_watch_yields_each_view_and_ends_when_closed(client: tidemill.Client, mill: Mill) -> None:
    mill.model.state = model_pb2.Model.STATE_QUEUED
    with client.watch_model() as views:
        assert [view.state for view in views] == ["queued", "starting", "starting", "ready"]
    mill.model.state = model_pb2.Model.STATE_STOPPED
    with client.watch_model() as views:
        assert next(views).state == "stopped"
        threading.Timer(0.1, views.close).start()
        with pytest.raises(tidemill.CallCancelledError):
            next(views)


def test_a_wrong_key_is_refused_by_the_server(mill: Mill) -> None:
    with tidemill.Client("tm_other", target=mill.target) as client, pytest.raises(tidemill.ApiKeyInvalidError):
        client.list_models()


def test_an_unknown_model_is_named(client: tidemill.Client) -> None:
    with pytest.raises(tidemill.ModelNotFoundError, match="No model spring-tide is registered"):
        client.get_model("spring-tide")


def test_an_idempotent_call_is_repeated_with_the_same_request_id(client: tidemill.Client, mill: Mill) -> None:
    mill.fail_next("StartSession", *[Refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")] * 2)
    client.start_session()
    assert len({one.request_id for one in mill.requests["StartSession"]}) == 1
    assert len(mill.requests["StartSession"]) == 3


def test_a_refusal_that_waiting_does_not_help_is_not_repeated(client: tidemill.Client, mill: Mill) -> None:
    mill.fail_next("StartSession", Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_seconds=3))
    with pytest.raises(tidemill.QueueFullError) as caught:
        client.start_session()
    assert caught.value.retry_after == timedelta(seconds=3)
    assert caught.value.request_id == mill.requests["StartSession"][0].request_id


def test_where_no_server_answers_the_error_says_how_to_start_one() -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can take it
        target = f"127.0.0.1:{place.getsockname()[1]}"
        with tidemill.Client(KEY, target=target) as client, pytest.raises(tidemill.UnreachableError) as caught:
            client.list_models()
    assert str(caught.value) == (
        f"No Tidemill server answers at {target}: start one with `tidemill serve`, or set TIDEMILL_TARGET."
    )


def test_a_port_that_speaks_http_as_the_openai_door_does_is_named_as_one() -> None:
    def answer(door: socket.socket) -> None:
        with suppress(OSError):  # closed by the test
            while True:
                with door.accept()[0] as caller, suppress(ConnectionError):
                    caller.sendall(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
                    while caller.recv(4096):  # until the caller has read it and goes
                        pass

    with socket.create_server(("127.0.0.1", 0)) as door:
        answering = threading.Thread(target=answer, args=(door,), name="door", daemon=True)
        answering.start()
        target = f"127.0.0.1:{door.getsockname()[1]}"
        with tidemill.Client(KEY, target=target) as client, pytest.raises(tidemill.UnreachableError) as caught:
            client.list_models()
        door.shutdown(socket.SHUT_RDWR)
        answering.join(timeout=30)
    assert f"{target} speaks HTTP/1.1 and not gRPC" in str(caught.value)


def test_a_server_that_comes_back_is_found_by_the_same_client(mill: Mill) -> None:
    again = Mill()

    def come_back(_: float) -> None:
        if not again.port:
            again.start(mill.port)
        grpc.channel_ready_future(client._transport._channel).result(60)

    with tidemill.Client(KEY, target=mill.target) as client:
        client.list_models()
        mill.stop()
        client._transport._sleep = come_back  # what it does between its tries
        try:
            assert client.list_models()[0].name == MODEL
        finally:
            again.stop()
    assert len(again.requests["ListModels"]) == 1


def test_a_closed_client_says_so(mill: Mill) -> None:
    client = tidemill.Client(KEY, target=mill.target)
    client.list_models()
    client.close()
    client.close()
    with pytest.raises(tidemill.ConfigError, match="closed"):
        client.list_models()


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.list_models(),
        lambda client: client.complete_prompt("hello", stream=False),
        lambda client: next(client.complete_prompt("hello")),
    ],
    ids=["unary", "whole", "stream"],
)
def test_a_client_that_another_thread_closes_while_a_call_is_made_says_so(
    mill: Mill, monkeypatch: pytest.MonkeyPatch, call
) -> None:
    client = tidemill.Client(KEY, target=mill.target)
    metadata = channel.metadata

    def close_first(connection):  # the call is made with what this returns
        monkeypatch.undo()
        client.close()
        return metadata(connection)

    monkeypatch.setattr(channel, "metadata", close_first)
    with pytest.raises(tidemill.ConfigError, match="closed"):
        call(client)


@pytest.mark.parametrize("timeout", [0, -1.5, "a", float("nan"), True])
def test_a_timeout_must_be_above_zero(timeout: float) -> None:
    with pytest.raises(tidemill.FieldInvalidError, match="above 0") as caught:
        tidemill.Client(KEY, timeout=timeout)
    assert caught.value.field == "timeout"


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("api_key", lambda: tidemill.Client(3)),  # type: ignore[arg-type]
        ("target", lambda: tidemill.Client(KEY, target=7400)),  # type: ignore[arg-type]
        ("custom_env_var", lambda: tidemill.AsyncClient(custom_env_var=b"KEY")),  # type: ignore[arg-type]
        ("model", lambda: tidemill.Client(KEY, model=3)),  # type: ignore[arg-type]
    ],
)
def test_a_setting_that_is_no_text_is_named(field: str, make) -> None:
    with pytest.raises(tidemill.ConfigError, match=f"{field} is of type") as caught:
        make()
    assert caught.value.field == field


@pytest.mark.parametrize("limit", [0, "a", None])
def test_a_limit_must_be_a_count(client: tidemill.Client, limit: int) -> None:
    with pytest.raises(tidemill.FieldInvalidError) as caught:
        client.list_sessions(limit=limit)
    assert caught.value.field == "limit"


def test_an_open_session_shows_what_it_is(client: tidemill.Client) -> None:
    session = client.session()
    assert repr(session) == "<OpenSession: starts with the `with` block>"
    with pytest.raises(tidemill.FailedPreconditionError):
        _ = session.bill
    with session:
        assert repr(session) == f"<OpenSession sessions/1 of {MODEL}: pending>"


def test_a_watch_is_opened_again_while_the_server_is_away(client: tidemill.Client, mill: Mill) -> None:
    mill.model.state = model_pb2.Model.STATE_QUEUED
    mill.fail_next("WatchModel", *[Refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")] * 2)
    assert client.wait_until_model_running(timeout=60).is_running
    mill.model.state = model_pb2.Model.STATE_QUEUED
    mill.fail_next("WatchModel", *[Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING")] * 2)
    with client.watch_model() as views:
        assert next(views).state == "queued"
    assert len(mill.requests["WatchModel"]) == 6
    mill.fail_next("WatchModel", Refusal(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"))
    with pytest.raises(tidemill.ModelNotFoundError):
        client.wait_until_model_running()
    assert len(mill.requests["WatchModel"]) == 7
