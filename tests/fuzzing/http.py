"""HTTP requests as bytes: right ones, odd ones, and what is hardly one at all."""

import asyncio
import random
import re
from collections.abc import Sequence

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "PRI", "X" * 300)
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"Accept-Encoding", b"gzip, \xff\xfe"),
    (b"Authorization", b"Bearer x"),
    (b"Connection", b"upgrade"),
    (b"Connection", b"keep-alive, close, \x80"),
    (b"Content-Encoding", b"gzip"),
    (b"Content-Length", b"-1"),
    (b"Content-Length", b"99999999999999999999999"),
    (b"Content-Length", b"0x10"),
    (b"Content-Type", b"text/plain; charset=\xc3\x28"),
    (b"Cookie", b"a=b; " * 500),
    (b"Expect", b"100-continue"),
    (b"Forwarded", b'for="[::1]";proto=x'),
    (b"Host", b"a@b:99999"),
    (b"Range", b"bytes=0-,-1"),
    (b"Transfer-Encoding", b"chunked"),
    (b"Transfer-Encoding", b"gzip, chunked, identity"),
    (b"Upgrade", b"websocket"),
    (b"Upgrade", b"h2c"),
    (b"X-Forwarded-For", b"10.0.0.1\t"),
    (b"X-Long", b"y" * 20_000),
    (b"X-Tidemill-Wait", b"0"),
    (b"X-Tidemill-Wait", b"1e9"),
    (b"X-Tidemill-Wait", "\u0663".encode()),
    (b"Bad Name", b"x"),
    (b"", b"nameless"),
    (b"Folded", b"a\r\n b"),
    (b"Split", b"a\r\nHTTP/1.1 500 x"),
)
_STATUS = re.compile(rb"^HTTP/1\.[01] ([0-9]{3}) ", re.MULTILINE)


def request_bytes(
    method: str, path: str, body: bytes, headers: Sequence[tuple[bytes, bytes]] = (), *, length: bool = True
) -> bytes:
    """One request, after which the server closes the connection."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: here", b"Connection: close"]
    lines += [name + b": " + value for name, value in headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(chance: random.Random, body: bytes) -> bytes:
    """A body in chunks, some of them wrong."""
    parts = []
    while body:
        size = chance.randrange(1, len(body) + 1)
        said = chance.choice((size, size, size, size + 1, -size, 2**70))
        parts.append(b"%x%s\r\n%s\r\n" % (said, chance.choice((b"", b";ext=\xff")), body[:size]))
        body = body[size:]
    return b"".join(parts) + chance.choice((b"0\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n", b"", b"zz\r\n\r\n"))


def odd_requests(chance: random.Random, path: str, body: bytes, key: tuple[bytes, bytes]) -> list[bytes]:
    """Requests around one path and one body, each odd in a way of its own."""
    some = chance.sample(HEADERS, chance.randrange(4))
    post = request_bytes("POST", path, body, [key])
    return [
        request_bytes(chance.choice(METHODS), path, body, [key, *some]),
        request_bytes("POST", path, body, [key, (b"Transfer-Encoding", b"chunked")], length=False)[: -len(body) or None]
        + chunked(chance, body),
        request_bytes("POST", path, body + b"}" * 3, [key, (b"Content-Length", b"%d" % len(body))], length=False),
        request_bytes("POST", path, body, [key, (b"Content-Length", b"%d" % (len(body) + 9))], length=False),
        post.replace(b"HTTP/1.1", chance.choice((b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1 x", b""))),
        post.replace(b"Connection: close\r\n", b"") + post.replace(b"Connection: close\r\n", b"") + post,
        post[: chance.randrange(len(post))],
    ]


async def exchange(address: str, content: bytes, patience: float) -> list[int]:
    """Send these bytes and nothing more; the statuses of what is answered, at most for `patience` seconds."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answer = bytearray()
    try:
        async with asyncio.timeout(patience):
            writer.write(content)
            await writer.drain()
            while chunk := await reader.read(65_536):
                answer += chunk
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return [int(status) for status in _STATUS.findall(bytes(answer))]


def is_harm(status: int) -> bool:
    """Whether a status says that something broke."""
    return status >= 500 and status != 503
