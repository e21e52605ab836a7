"""Servers that are stopped, killed and started again, with streams and sessions open."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.integration.api.conftest import Wire, text_of, wait_until, wire_to
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import inference_pb2, session_pb2

pytestmark = pytest.mark.fault

SLOWLY = ("--replica-device", "fake")  # 5 ms a token, and no answer ends by itself


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with server_process(tmp_path, *SLOWLY) as process:
        yield process


def children_of(pid: int) -> list[int]:
    """The processes whose parent this one is now."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            children.append(int(stat.parent.name))
    return children


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def running_stream(wire: Wire, max_tokens: int = 400) -> Iterator[inference_pb2.GenerateResponse]:
    """A stream whose first text has come."""
    stream = wire.generate("tell me of the tide", max_tokens=max_tokens)
    for response in stream:
        if response.WhichOneof("event") == "delta":
            return stream
    raise AssertionError("the stream ended before its first text")


def test_sigterm_lets_a_running_stream_finish_and_leaves_no_process(server: ServerProcess) -> None:
    with wire_to(server) as wire:
        wire.start()
        stream = running_stream(wire)
        children = children_of(server.process.pid)
        assert children
        server.process.send_signal(signal.SIGTERM)
        responses = list(stream)
        assert responses[-1].end.finish_reason == inference_pb2.FINISH_REASON_LENGTH
        assert responses[-1].end.usage.completion_tokens == 400
        assert server.process.wait(30) == 0
    assert not any(is_alive(child) for child in children)


def test_after_sigterm_new_calls_are_refused_as_unavailable(server: ServerProcess) -> None:
    with wire_to(server) as wire:
        wire.start()
        stream = running_stream(wire)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(grpc.RpcError) as refused:
            wire.start()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        list(stream)


def test_a_killed_server_leaves_no_replica_and_its_sessions_go_on_after_the_restart(tmp_path: Path) -> None:
    with server_process(tmp_path) as server, wire_to(server) as wire:
        name = wire.start().session.name
        list(wire.generate())
        children = children_of(server.process.pid)
        server.kill()
        wait_until(lambda: not any(is_alive(child) for child in children), "an end of all replicas", 5)
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


def test_a_killed_replica_ends_its_streams_with_a_typed_error_and_is_replaced(server: ServerProcess) -> None:
    with wire_to(server) as wire:
        wire.start()
        stream = running_stream(wire, max_tokens=900)
        replica = next(pid for pid in children_of(server.process.pid) if b"tidemill_serving" in _command(pid))
        killed = time.monotonic()
        os.kill(replica, signal.SIGKILL)
        end = list(stream)[-1].end
        assert time.monotonic() - killed < 5
        assert end.finish_reason == inference_pb2.FINISH_REASON_ERROR
        assert end.error.reason == end.error.REASON_REPLICA_LOST
        assert end.usage.completion_tokens > 0
        assert text_of(list(wire.generate()))


def test_a_stopped_session_ends_its_streams_after_the_grace_with_their_text(tmp_path: Path) -> None:
    with server_process(tmp_path, "--stop-grace", "0.2", *SLOWLY) as server, wire_to(server) as wire:
        wire.start()
        stream = running_stream(wire, max_tokens=1000)
        assert wire.stop().session.bill.final
        responses = list(stream)
        assert responses[-1].end.finish_reason == inference_pb2.FINISH_REASON_SESSION_STOPPED
        assert 0 < responses[-1].end.usage.completion_tokens < 1000
        assert text_of(responses)


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
