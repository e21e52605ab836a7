"""Nothing runs for free: what a stop must end, however it comes."""

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import hpack
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame

from tests.fault.baseline import gauges
from tests.fault.callers import callers_of
from tests.fault.long_answers import LONG_LLAMA
from tests.fault.test_server_life import SLOWLY, VERY_SLOWLY, running_stream
from tests.fuzzing.http2 import PREFACE
from tests.integration.api.conftest import MODEL, Wire, text_of, wait_until, wire_to
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import inference_pb2, model_pb2, session_pb2

pytestmark = pytest.mark.fault

STOPPED = inference_pb2.FINISH_REASON_SESSION_STOPPED


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with server_process(tmp_path, "--stop-grace", "0.3", *VERY_SLOWLY) as process:
        yield process


@pytest.fixture
def wire(server: ServerProcess) -> Iterator[Wire]:
    with wire_to(server) as wire:
        yield wire


def collect(stream: Iterator[inference_pb2.GenerateResponse]) -> tuple[threading.Thread, list[object]]:
    """Read a stream in a thread of its own; an error is collected as the last thing."""
    seen: list[object] = []

    def read() -> None:
        try:
            seen.extend(stream)
        except grpc.RpcError as error:
            seen.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    return thread, seen


def test_a_stopped_pending_session_wakes_no_model_and_pays_for_no_text(server: ServerProcess, wire: Wire) -> None:
    wire.start()
    thread, seen = collect(wire.generate(max_tokens=1000))
    wait_until(lambda: gauges(server)["tidemill_waiting_generations"] or wire.model().ready_replicas, "a wait")
    stopped = wire.stop().session
    if stopped.HasField("start_time"):
        pytest.skip("the model was faster than the stop")
    thread.join(60)
    assert stopped.bill.cost_microcredits == 0
    ends = [message for message in seen if isinstance(message, inference_pb2.GenerateResponse)]
    assert not any(message.delta.num_tokens for message in ends)
    assert ends[-1].end.finish_reason == STOPPED


async def test_the_inputs_of_a_batch_that_have_not_begun_end_with_the_session(long_server: ServerProcess) -> None:
    async with callers_of(long_server) as callers:
        await callers.generate(5)
        request = inference_pb2.GenerateBatchRequest(
            model=LONG_LLAMA,
            inputs=[inference_pb2.Input(prompt=f"prompt {number}") for number in range(40)],
            options=inference_pb2.GenerationOptions(max_tokens=50_000),
        )
        batch = callers.inference.GenerateBatch(request, metadata=callers.metadata, timeout=60)
        slots_used = "tidemill_replica_slots_used"
        await asyncio.to_thread(wait_until, lambda: gauges(long_server)[slots_used] == 8, "eight that run")
        await asyncio.sleep(0.5)
        await callers.stop()
        ends = [response.result.end async for response in batch if response.HasField("result")]
    assert [end.finish_reason for end in ends] == [STOPPED] * 40
    assert 1 <= sum(end.usage.completion_tokens > 0 for end in ends) <= 8 + 2  # the replica's places, taken once


def test_a_stop_whose_caller_went_away_drains_all_the_same(wire: Wire) -> None:
    for delay in (0.0005, 0.001, 0.002, 0.004):
        name = wire.start().session.name
        thread, seen = collect(running_stream(wire, max_tokens=1000))
        request = session_pb2.StopSessionRequest(name=name, all_holders=True)
        call = wire.sessions.StopSession.future(request, metadata=wire.metadata)
        time.sleep(delay)
        call.cancel()
        time.sleep(0.2)
        wire.stop()  # if the cancelled one did not come through
        thread.join(60)
        assert seen[-1].end.finish_reason == STOPPED
        get = session_pb2.GetSessionRequest(name=name)
        wait_until(
            lambda get=get: (
                wire.sessions.GetSession(get, metadata=wire.metadata).state == session_pb2.Session.STATE_ENDED
            ),
            "ENDED",
        )


def test_sigterm_waits_for_no_watch_and_says_draining_to_new_calls(tmp_path: Path) -> None:
    with server_process(tmp_path, "--stop-grace", "300", *SLOWLY) as server, wire_to(server) as wire:
        wire.start()
        thread, seen = collect(running_stream(wire, max_tokens=600))
        watch = wire.models.WatchModel(model_pb2.WatchModelRequest(name=MODEL), metadata=wire.metadata)
        next(watch)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: _reason_of_a_new_call(wire) == "DRAINING", "a refusal with DRAINING")
        thread.join(60)
        assert seen[-1].end.finish_reason == inference_pb2.FINISH_REASON_LENGTH
        assert server.process.wait(60) == 0  # and not after the 300 seconds of grace
        with pytest.raises(grpc.RpcError) as ended_watch:
            list(watch)
        assert _reason(ended_watch.value) == "DRAINING"


def test_a_watcher_of_health_that_takes_nothing_holds_up_no_stop(tmp_path: Path) -> None:
    """It needs no key, and the first word to it never leaves."""
    headers = [(":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Watch")]
    headers += [(":authority", "here"), ("te", "trailers"), ("content-type", "application/grpc")]
    call = HeadersFrame(1, hpack.Encoder().encode(headers), flags=["END_HEADERS"]).serialize()
    call += DataFrame(1, b"\0" * 5, flags=["END_STREAM"]).serialize()
    no_room = SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}).serialize()
    with server_process(tmp_path, *SLOWLY) as server:
        host, _, port = server.grpc.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(PREFACE + no_room + call)
            answer = b""
            while HeadersFrame.type not in kinds_of(answer):
                answer += connection.recv(65_536)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(60) == 0


def kinds_of(answer: bytes) -> list[int]:
    """The types of the HTTP/2 frames that came."""
    kinds = []
    while len(answer) >= 9:
        kinds.append(answer[3])
        answer = answer[9 + int.from_bytes(answer[:3], "big") :]
    return kinds


def test_a_stream_longer_than_the_grace_ends_typed_with_its_text_at_sigterm(server: ServerProcess, wire: Wire) -> None:
    wire.start()
    thread, seen = collect(running_stream(wire, max_tokens=1000))
    server.process.send_signal(signal.SIGTERM)
    thread.join(60)
    end = seen[-1].end
    assert end.finish_reason == inference_pb2.FINISH_REASON_ERROR
    assert end.error.reason == end.error.REASON_DRAINING
    assert 0 < end.usage.completion_tokens < 1000
    assert text_of(seen)
    assert server.process.wait(60) == 0


def test_a_second_signal_cuts_the_grace_short(tmp_path: Path) -> None:
    with server_process(tmp_path, "--stop-grace", "100", *VERY_SLOWLY) as server, wire_to(server) as wire:
        wire.start()
        thread, seen = collect(running_stream(wire, max_tokens=1000))
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: _reason_of_a_new_call(wire) == "DRAINING", "a refusal with DRAINING")  # two at once are one
        server.process.send_signal(signal.SIGINT)
        thread.join(60)
        assert seen[-1].end.usage.completion_tokens < 1000
        assert server.process.wait(60) == 0


def test_bytes_that_are_no_message_are_refused_as_a_wrong_request_and_only_to_a_valid_key(
    long_server: ServerProcess,
) -> None:
    with wire_to(long_server) as wire:
        for method in ("/tidemill.v1.SessionService/StartSession", "/tidemill.v1.InferenceService/Generate"):
            stream = method.endswith("Generate")
            call = wire.channel.unary_stream(method) if stream else wire.channel.unary_unary(method)

            def send(metadata: object, call=call, stream=stream) -> grpc.StatusCode:
                garbage = b"\xff\xff\xff\xff"
                with pytest.raises(grpc.RpcError) as refused:
                    list(call(garbage, metadata=metadata)) if stream else call(garbage, metadata=metadata)
                return refused.value.code()

            assert send(()) is grpc.StatusCode.UNAUTHENTICATED
            assert send(wire.metadata) is grpc.StatusCode.INVALID_ARGUMENT


def _reason_of_a_new_call(wire: Wire) -> str:
    with pytest.raises(grpc.RpcError) as refused:
        wire.stop(holder="nobody", all_holders=False, model="none-such")
    return _reason(refused.value)


def _reason(error: grpc.RpcError) -> str:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    if status is not None:
        status.details[0].Unpack(info)
    return info.reason
