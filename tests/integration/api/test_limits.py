"""What one connection may take: beyond it is a clear answer, and nobody else notices."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import tidemill
from tests.integration.api.conftest import MODEL, Wire, wait_until, wire_to
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import inference_pb2, model_pb2

NUM_STREAMS = 4


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with small limits."""
    options = ("--max-streams-per-connection", str(NUM_STREAMS), "--max-http-connections", "3")
    with server_process(tmp_path_factory.mktemp("tight"), "--replica-device", "fake", *options) as process:
        yield process


def _is_served(wire: Wire) -> bool:
    try:
        return bool(wire.model().name)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:  # type: ignore[attr-defined]
            raise
        return False


def test_calls_beyond_the_limit_of_a_connection_are_refused_and_other_connections_serve(tight: ServerProcess) -> None:
    with (
        tidemill.Client(tight.api_key, target=tight.grpc, model=MODEL, timeout=60) as client,
        wire_to(tight) as other,
        ExitStack() as open_streams,
    ):
        watched = [open_streams.enter_context(client.watch_model()) for _ in range(NUM_STREAMS)]
        for stream in watched:
            next(stream)
        with pytest.raises(tidemill.ConnectionFullError, match=f"runs {NUM_STREAMS} calls, as many as it may") as full:
            client.get_model()
        assert full.value.retry_after is not None
        assert other.model().name.endswith(MODEL)
        watched[0].close()
        wait_until(lambda: _gets(client), "a place on the connection")


def test_who_wants_to_stop_is_not_refused_by_a_full_connection(tight: ServerProcess) -> None:
    with wire_to(tight) as wire:
        session = wire.start().session
        request = model_pb2.WatchModelRequest(name=MODEL)
        watched = [wire.models.WatchModel(request, metadata=wire.metadata, timeout=60) for _ in range(NUM_STREAMS)]
        for stream in watched:
            next(stream)
        assert not _is_served(wire)
        assert wire.stop().session.name == session.name
        for stream in watched:
            stream.cancel()


def _gets(client: tidemill.Client) -> bool:
    try:
        return bool(client.get_model())
    except tidemill.ConnectionFullError:
        return False


def test_a_flood_of_calls_on_one_connection_is_answered_to_the_last(tight: ServerProcess) -> None:
    with wire_to(tight) as wire:
        request = model_pb2.WatchModelRequest(name=MODEL)
        calls = [wire.models.WatchModel(request, metadata=wire.metadata, timeout=60) for _ in range(300)]
        codes = []
        for call in calls:
            try:
                next(call)
            except grpc.RpcError as error:
                codes.append(error.code())  # type: ignore[attr-defined]
        # UNAVAILABLE is gRPC's own word for streams that were opened before the client had heard of the limit.
        assert set(codes) <= {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
        assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) > 90
        assert len(codes) == len(calls) - NUM_STREAMS
        for call in calls:
            call.cancel()


def test_calls_without_a_key_count_for_their_connection_too(tight: ServerProcess) -> None:
    """gRPC itself holds back what is far beyond the limit, also of the methods that are open."""
    with grpc.insecure_channel(tight.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        calls = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(NUM_STREAMS + 100)]
        for call in calls:
            next(call)
        with pytest.raises(grpc.RpcError) as held_back:
            next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=0.5))
        assert held_back.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        for call in calls:
            call.cancel()
    with wire_to(tight) as other:
        assert _is_served(other)


def test_too_much_metadata_and_too_large_messages_are_refused_and_a_stream_beside_goes_on(
    slow_server: ServerProcess,
) -> None:
    with wire_to(slow_server) as wire:
        wire.start()
        stream = wire.generate(max_tokens=400)
        next(stream)
        for size in (17 << 10, 1 << 20):
            with pytest.raises(grpc.RpcError, match="metadata size exceeds") as refused:
                wire.models.ListModels(
                    model_pb2.ListModelsRequest(), metadata=(*wire.metadata, ("x", "v" * size)), timeout=60
                )
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.RpcError, match="larger than max") as refused:
            list(wire.generate("x" * (5 << 20)))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        *_, last = stream
        assert last.end.finish_reason == inference_pb2.FINISH_REASON_LENGTH


def test_http_connections_beyond_the_limit_are_refused_on_that_port_alone(tight: ServerProcess) -> None:
    with ExitStack() as opened:
        answers = [_http(tight.http, opened) for _ in range(4)]
        assert [status for status, _ in answers] == [200, 200, 200, 503]
        assert json.loads(answers[3][1])["error"]["code"] == "CONNECTION_FULL"
        assert _http(tight.admin, opened, "/readyz")[0] == 200
        with wire_to(tight) as wire:
            assert _is_served(wire)
    with ExitStack() as opened:
        wait_until(lambda: _http(tight.http, opened)[0] == 200, "a place on the port")


def _http(address: str, opened: ExitStack, path: str = "/healthz") -> tuple[int, bytes]:
    """Status and body of an answer on a connection that stays open."""
    host, port = address.split(":")
    connection = opened.enter_context(socket.create_connection((host, int(port)), timeout=60))
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.partition(b"\r\n\r\n")[2]:
        answer += connection.recv(10_000)
    return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]


@pytest.fixture(scope="module")
def restless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose connections are old after a second."""
    with server_process(
        tmp_path_factory.mktemp("restless"), "--replica-device", "fake", "--max-connection-age", "1"
    ) as process:
        yield process


def test_a_connection_ends_by_age_without_a_lost_call_or_a_cut_stream(restless: ServerProcess) -> None:
    with (
        tidemill.Client(restless.api_key, target=restless.grpc, model=MODEL, timeout=100) as client,
        client.watch_model() as watched,
    ):
        next(watched)
        num_connections = _count_connections(client)
        with client.session():
            client.wait_until_model_running()
            answer = client.complete_prompt("on and on", max_tokens=100, temperature=0, stream=False)
            while num_connections() < 4:
                assert client.list_models()
                assert client.complete_prompt("on and on", max_tokens=100, temperature=0, stream=False) == answer
        # The stream lives on its first connection, which is three seconds old at least, and still says what is new.
        client.stop_model(force=True)
        assert next(model for model in watched if model.state == "stopped")


def _count_connections(client: tidemill.Client) -> Callable[[], int]:
    states: list[grpc.ChannelConnectivity] = []
    client._transport._channel.subscribe(states.append)
    return lambda: states.count(grpc.ChannelConnectivity.READY)


async def test_an_asyncio_client_does_not_notice_either(restless: ServerProcess) -> None:
    async with tidemill.AsyncClient(restless.api_key, target=restless.grpc, timeout=100) as client:
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            assert await client.list_models()
