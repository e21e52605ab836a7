"""The server of our gRPC ports: no path of anybody's ends it."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import TypeVar

import grpc
import grpc.aio
import hpack
import pytest
from hyperframe.frame import DataFrame, HeadersFrame

from tests.fuzzing.http2 import PREFACE, SETTINGS, grpc_endings
from tidemill_ports import grpc_server
from tidemill_ports.grpc_server import aio_server

T = TypeVar("T")
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED.value[0]


async def hello(request: bytes, _context: object) -> bytes:
    return request


async def ask(port: int, path: bytes) -> list[tuple[int, bool]]:
    """Call a path over a connection of its own; how the call ended."""
    headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "here")]
    headers += [("te", "trailers"), ("content-type", "application/grpc")]
    call = HeadersFrame(1, hpack.Encoder().encode(headers), flags=["END_HEADERS"]).serialize()
    call += DataFrame(1, b"\0" * 5, flags=["END_STREAM"]).serialize()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + SETTINGS + call)
    answer = b""
    try:
        async with asyncio.timeout(60):
            while not grpc_endings(answer):
                answer += await reader.read(65_536)
    finally:
        writer.close()
    return grpc_endings(answer)


@pytest.mark.parametrize("path", [b"/Hello/\xaf", b"\xff", b"/\xed\xa0\x80", b"/Hello/Nobody", b"/" + b"x" * 5_000])
async def test_a_method_that_nobody_registered_is_unimplemented_whatever_its_path_is(path: bytes) -> None:
    server = aio_server([], ())
    handler = grpc.unary_unary_rpc_method_handler(hello)
    server.add_registered_method_handlers("Hello", {"Say": handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for _ in range(3):
            assert await ask(port, path) == [(UNIMPLEMENTED, False)]
            assert await channel.unary_unary("/Hello/Say")(b"tide", timeout=60) == b"tide"
    await server.stop(0)


async def test_no_port_is_opened_with_a_grpc_that_cannot_be_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "cygrpc", SimpleNamespace(AioServer=object))
    with pytest.raises(RuntimeError, match=r"it needs 1\.84 or 1\.85"):
        aio_server([], ())


async def test_a_server_stops_while_somebody_does_not_read_its_refusals() -> None:
    server = aio_server([], ())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + SETTINGS)
    for stream_id in range(1, 200, 2):
        headers = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "here")]
        headers += [("te", "trailers"), ("content-type", "application/grpc")]
        writer.write(HeadersFrame(stream_id, hpack.Encoder().encode(headers), flags=["END_HEADERS"]).serialize())
    await writer.drain()
    async with asyncio.timeout(60):
        await server.stop(1)
    writer.close()


async def test_calls_that_come_while_the_server_is_held_up_are_all_answered() -> None:
    """More than the thousand beyond which gRPC by itself drops some at random."""
    num_calls = 2_000
    server = aio_server([], ())
    server.add_registered_method_handlers("Hello", {"Say": grpc.unary_unary_rpc_method_handler(hello)})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        await asyncio.to_thread(grpc.channel_ready_future(channel).result, 30)
        say = channel.unary_unary("/Hello/Say")
        calls = hold_up(lambda: [say.future(b"tide", timeout=120) for _ in range(num_calls)])
        endings = await asyncio.to_thread(lambda: Counter(call.code() for call in calls))
    assert endings == {grpc.StatusCode.OK: num_calls}
    await server.stop(0)


def hold_up(send: Callable[[], list[T]]) -> list[T]:
    """Send while the event loop stands, and until what was sent has come to the server."""
    sent = send()
    time.sleep(1)
    return sent
