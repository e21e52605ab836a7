"""Servers that are stopped, killed and started again, with streams and sessions open."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.fault.callers import callers_of, first_text, read
from tests.fault.figures import counts
from tests.fault.long_answers import long_server_process
from tests.integration.api.conftest import Wire, text_of, wait_until, wire_to
from tests.processes import children_of, is_alive
from tests.scale import bound
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import inference_pb2, session_pb2

pytestmark = pytest.mark.fault

SLOWLY = ("--replica-device", "fake")  # 5 ms a token, and no answer ends by itself
VERY_SLOWLY = (*SLOWLY, "--replica-fake-tick-ms", "20")  # the longest answer takes 20 s, unless it is ended


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with server_process(tmp_path, *SLOWLY) as process:
        yield process


def running_stream(wire: Wire, max_tokens: int = 400) -> Iterator[inference_pb2.GenerateResponse]:
    """A stream whose first text has come."""
    stream = wire.generate("tell me of the tide", max_tokens=max_tokens)
    for response in stream:
        if response.WhichOneof("event") == "delta":
            return stream
    raise AssertionError("the stream ended before its first text")


def test_sigterm_lets_a_running_stream_finish_refuses_new_calls_and_leaves_no_process(server: ServerProcess) -> None:
    with wire_to(server) as wire:
        wire.start()
        stream = running_stream(wire)
        children = children_of(server.process.pid)
        assert children
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_refused(wire), "a refusal of new calls")
        responses = list(stream)
        assert responses[-1].end.finish_reason == inference_pb2.FINISH_REASON_LENGTH
        assert responses[-1].end.usage.completion_tokens == 400
        assert server.process.wait(60) == 0
    assert not any(is_alive(child) for child in children)


async def test_sigterm_under_fifty_streams_is_told_at_once_and_cuts_none_within_the_grace(
    tmp_path: Path, note: Callable[..., None]
) -> None:
    num_streams = 50
    with long_server_process(tmp_path, "--stop-grace", "120", slots=num_streams) as server:
        async with callers_of(server) as callers:
            calls = [callers.call(300) for _ in range(num_streams)]
            answers = await asyncio.gather(*(first_text(call) for call in calls))
            watch = health_pb2_grpc.HealthStub(callers.channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            server.process.terminate()
            terminated = time.monotonic()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            told = time.monotonic() - terminated
            answers = await asyncio.gather(*(read(*pair) for pair in zip(calls, answers, strict=True)))
            ended = time.monotonic() - terminated
        assert await asyncio.to_thread(server.process.wait, 60) == 0
        exited = time.monotonic() - terminated
    assert counts(answer.ending for answer in answers) == f"{num_streams} LENGTH"
    assert {answer.num_tokens for answer in answers} == {300}
    assert told < bound(0.5, busy=60)  # 100 ms is the bar
    note(
        not_serving_after=f"{told:.3f} s",
        streams=f"{counts(answer.ending for answer in answers)}, the last after {ended:.2f} s",
        exit_after=f"{exited:.2f} s",
    )


def is_refused(wire: Wire) -> bool:
    try:
        wire.start()  # the session that is open already
    except grpc.RpcError as refused:
        return refused.code() is grpc.StatusCode.UNAVAILABLE
    return False


@pytest.mark.rule("S24")
def test_a_killed_server_leaves_no_replica_and_its_sessions_go_on_after_the_restart(tmp_path: Path) -> None:
    with server_process(tmp_path) as server, wire_to(server) as wire:
        name = wire.start().session.name
        list(wire.generate())
        children = children_of(server.process.pid)
        server.kill()
        wait_until(lambda: not any(is_alive(child) for child in children), "an end of all replicas")
    time.sleep(1.5)
    with server_process(tmp_path) as server, wire_to(server) as wire:
        again = wire.start()
        assert again.already_active
        assert again.session.name == name
        assert text_of(list(wire.generate()))
        bill = wire.stop().session.bill
        session = wire.sessions.GetSession(session_pb2.GetSessionRequest(name=name), metadata=wire.metadata)
        wall_ms = (session.end_time.ToMilliseconds()) - session.create_time.ToMilliseconds()
        assert 0 < bill.billed_milliseconds <= wall_ms - 1000  # the time without a server is not billed


@pytest.mark.rule("S4")
def test_a_stopped_session_ends_its_streams_after_the_grace_with_their_text(tmp_path: Path) -> None:
    with server_process(tmp_path, "--stop-grace", "0.2", *VERY_SLOWLY) as server, wire_to(server) as wire:
        wire.start()
        stream = running_stream(wire, max_tokens=1000)
        assert wire.stop().session.bill.final
        responses = list(stream)
        assert responses[-1].end.finish_reason == inference_pb2.FINISH_REASON_SESSION_STOPPED
        assert 0 < responses[-1].end.usage.completion_tokens < 1000
        assert text_of(responses)
