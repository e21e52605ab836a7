"""What an HTTP connection may take before it has made a request."""

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.certificates import LOCAL, Authority
from tidemill_services.gateway import http_protocol, http_server
from tidemill_services.gateway.http_server import HttpServer, HttpSettings


async def _page(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def served(settings: HttpSettings | None = None) -> AsyncIterator[int]:
    server = HttpServer(_page, "127.0.0.1", 0, settings or HttpSettings(max_connections=100))
    await server.start()
    try:
        yield int(server.address.rpartition(":")[2])
    finally:
        await server.stop()


async def answer(port: int, *pieces: bytes) -> tuple[bytes, dict]:
    """The first line and the JSON body of the answer to what is sent piece by piece; then the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert b"connection: close" in head.lower()
    return head.splitlines()[0], json.loads(body)


@pytest.mark.parametrize("num_pieces", [1, 8])
async def test_headers_that_are_too_large_are_answered_with_431(num_pieces: int) -> None:
    size = http_protocol.MAX_HEAD_BYTES // num_pieces + 100
    pieces = [b"GET / HTTP/1.1\r\nhost: x\r\n"]
    pieces += [b"a%d: %s\r\n" % (number, b"v" * size) for number in range(num_pieces)]
    if num_pieces == 1:
        pieces = [b"".join([*pieces, b"\r\n"])]
    async with served() as port:
        status, body = await answer(port, *pieces)
        assert status.startswith(b"HTTP/1.1 431 ")
        assert body["error"]["code"] == "FIELD_INVALID"
        assert "32,768 bytes" in body["error"]["message"]


async def test_what_is_no_http_is_answered_in_the_shape_of_all_errors() -> None:
    async with served() as port:
        status, body = await answer(port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        assert status.startswith(b"HTTP/1.1 400 ")
        assert body["error"]["type"] == "invalid_request_error"


async def test_who_says_nothing_or_half_is_hung_up_on_and_who_keeps_a_connection_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 2.0)

    async def is_hung_up_on(said: bytes) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        async with asyncio.timeout(60):
            nothing = await reader.read()
        writer.close()
        return nothing == b""

    async with served() as port:
        request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
        caller = socket.create_connection(("127.0.0.1", port))
        caller.sendall(request)  # before the server begins to wait for it
        kept, writer = await asyncio.open_connection(sock=caller)
        await kept.readuntil(b"ok")
        assert all(await asyncio.gather(*map(is_hung_up_on, (b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost:"))))
        writer.write(request)
        await kept.readuntil(b"ok")
        writer.close()


async def test_connections_beyond_the_limit_are_refused_and_the_others_go_on() -> None:
    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    async with served(HttpSettings(max_connections=3)) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for reader, writer in held:
            writer.write(request)
            await reader.readuntil(b"ok")
        status, body = await answer(port, request)
        assert status.startswith(b"HTTP/1.1 503 ")
        assert body["error"]["code"] == "CONNECTION_FULL"
        for reader, writer in held:
            writer.write(request)
            await reader.readuntil(b"ok")
        held[0][1].close()
        await held[0][1].wait_closed()
        async with asyncio.timeout(60):
            while not await _is_served(port):  # until the server has noticed the end of the first
                pass
        for _, writer in held[1:]:
            writer.close()


async def _is_served(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    served_at_all = b" 200 " in await reader.readline()
    writer.close()
    return served_at_all


async def test_a_handshake_that_does_not_end_is_cut_and_holds_up_no_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Authority().write(tmp_path, *LOCAL)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    monkeypatch.setattr(http_server, "HANDSHAKE_SECONDS", 0.5)
    async with served(HttpSettings(10, context)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01")
        async with asyncio.timeout(60):
            await reader.read()  # whatever TLS says before it hangs up
        writer.close()
    monkeypatch.setattr(http_server, "HANDSHAKE_SECONDS", 100.0)
    async with served(HttpSettings(10, context)) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        client = ssl.create_default_context(cafile=files.ca)
        idle = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        began = time.monotonic()
    assert time.monotonic() - began < 60
    for _, opened in (*silent, idle):
        opened.transport.abort()
