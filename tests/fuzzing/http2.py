"""HTTP/2 connections of nobody's good will, as the bytes that a client would send."""

import random
from collections.abc import Callable, Iterator, Sequence

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = SettingsFrame(0).serialize()
Headers = Sequence[tuple[str | bytes, str | bytes]]

TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(200))
TIMEOUTS = ("1n", "0S", "99999999H", "99999999n", "-1S", "1", "S", "999999999S", "1x", "\u0661S")


def _head(path: str, key: str, *more: tuple[str, str]) -> Headers:
    return (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "here"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("authorization", f"Bearer {key}"),
        *more,
    )


class Attacker:
    """Makes connections. `request` is a right message of `path`, and `key` opens it."""

    def __init__(self, chance: random.Random, path: str, key: str, request: bytes) -> None:
        self._chance = chance
        self._path = path
        self._key = key
        self._message = b"\0" + len(request).to_bytes(4, "big") + request
        self._attacks: list[Callable[[], Iterator[bytes]]] = [
            getattr(self, name) for name in dir(type(self)) if name.startswith("attack_")
        ]
        self._turn = 0

    @property
    def num_kinds(self) -> int:
        """How many different attacks there are; they come in turn."""
        return len(self._attacks)

    def right_connection(self) -> bytes:
        """One call without anything odd, on a connection without anything odd: what every attack departs from."""
        return PREFACE + SETTINGS + self._call(1)

    def next_connection(self) -> bytes:
        """All that the next connection sends."""
        attack = self._attacks[self._turn % len(self._attacks)]
        self._turn += 1
        return b"".join(attack())

    def _headers(self, stream_id: int, headers: Headers, *flags: str) -> bytes:
        block = hpack.Encoder().encode(headers, huffman=self._chance.random() < 0.5)
        return HeadersFrame(stream_id, block, flags=["END_HEADERS", *flags]).serialize()

    def _call_of(self, headers: Headers) -> bytes:
        return self._headers(1, headers) + DataFrame(1, self._message, flags=["END_STREAM"]).serialize()

    def _call(self, stream_id: int, *more: tuple[str, str], message: bytes | None = None) -> bytes:
        data = self._message if message is None else message
        return (
            self._headers(stream_id, _head(self._path, self._key, *more))
            + DataFrame(stream_id, data, flags=["END_STREAM"]).serialize()
        )

    def attack_garbage(self) -> Iterator[bytes]:
        yield self._chance.randbytes(self._chance.randrange(1, 4000))

    def attack_garbage_after_the_preface(self) -> Iterator[bytes]:
        yield PREFACE + self._chance.randbytes(self._chance.randrange(1, 4000))

    def attack_garbage_after_the_settings(self) -> Iterator[bytes]:
        yield PREFACE + SETTINGS + self._chance.randbytes(self._chance.randrange(1, 4000))

    def attack_tls_hello(self) -> Iterator[bytes]:
        yield TLS_HELLO

    def attack_http_1(self) -> Iterator[bytes]:
        yield b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"

    def attack_nothing(self) -> Iterator[bytes]:
        yield PREFACE[: self._chance.randrange(len(PREFACE) + 1)]

    def attack_cut_or_flipped_call(self) -> Iterator[bytes]:
        whole = bytearray(self.right_connection())
        for _ in range(self._chance.randrange(4)):
            place = self._chance.randrange(len(PREFACE), len(whole))
            whole[place] ^= 1 << self._chance.randrange(8)
        yield bytes(whole[: self._chance.randrange(len(PREFACE), len(whole) + 1)])

    def attack_wrong_stream_ids(self) -> Iterator[bytes]:
        yield PREFACE + SETTINGS
        frames = [
            self._call(2),
            self._call(2**31 - 1) + self._call(1),
            self._call(5) + self._call(3),
            b"".join(DataFrame(9, b"x" * 9).serialize() for _ in range(3)),
            RstStreamFrame(77, 8).serialize(),
            self._headers(1, _head(self._path, self._key)).replace(b"\0\0\0\x01", b"\0\0\0\0", 1),
            WindowUpdateFrame(99, 5).serialize(),
        ]
        yield self._chance.choice(frames)

    def attack_settings_flood(self) -> Iterator[bytes]:
        yield PREFACE
        for _ in range(400):
            number, value = self._chance.randrange(1, 9), self._chance.choice((0, 1, 16_384, 2**31 - 1, 2**32 - 1))
            yield SettingsFrame(0, settings={number: value}).serialize()

    def attack_rapid_reset(self) -> Iterator[bytes]:
        yield PREFACE + SETTINGS
        for stream_id in range(1, 401, 2):
            yield self._call(stream_id) + RstStreamFrame(stream_id, 8).serialize()

    def attack_ping_flood(self) -> Iterator[bytes]:
        yield PREFACE + SETTINGS + PingFrame(0, b"tidemill").serialize() * 1000

    def attack_endless_headers(self) -> Iterator[bytes]:
        yield PREFACE + SETTINGS + HeadersFrame(1, b"\0\1a\1b").serialize()
        for _ in range(self._chance.randrange(1, 40)):
            yield ContinuationFrame(1, b"\0\1a\x7f\x80\x7e" + b"b" * 16_000).serialize()

    def attack_huge_header(self) -> Iterator[bytes]:
        yield PREFACE + SETTINGS
        size = self._chance.choice((9_000, 12_000, 16_000))
        yield self._headers(1, [(":path", self._path), ("x", "y" * size)])

    def attack_header_table_bomb(self) -> Iterator[bytes]:
        """One large entry of the table, said again thousands of times in a byte each."""
        yield PREFACE + SETTINGS
        large = b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4_000
        yield HeadersFrame(1, large + b"\xbe" * 12_000, flags=["END_HEADERS"]).serialize()

    def attack_broken_header_block(self) -> Iterator[bytes]:
        yield PREFACE + SETTINGS
        yield HeadersFrame(1, self._chance.randbytes(60), flags=["END_HEADERS", "END_STREAM"]).serialize()

    def attack_window_overflow(self) -> Iterator[bytes]:
        yield PREFACE + SETTINGS + self._headers(1, _head(self._path, self._key))
        stream_id = self._chance.choice((0, 1))
        yield WindowUpdateFrame(stream_id, 2**31 - 1).serialize() * 3
        yield b"\0\0\4\x08\0" + stream_id.to_bytes(4, "big") + bytes(4)  # by nothing

    def attack_frames_of_a_server(self) -> Iterator[bytes]:
        yield PREFACE + SETTINGS
        yield self._chance.choice(
            (
                PushPromiseFrame(1, 2, b"\x82", flags=["END_HEADERS"]).serialize(),
                GoAwayFrame(0, 2**31 - 1, 99, b"x" * 100).serialize() * 20,
                PriorityFrame(1, depends_on=1, stream_weight=255).serialize(),
                ExtensionFrame(type=0xEE, stream_id=3, flag_byte=0xFF, body=b"x" * 50).serialize() * 100,
            )
        )

    def attack_frame_longer_than_allowed(self) -> Iterator[bytes]:
        yield PREFACE + SETTINGS + b"\xff\xff\xff" + bytes([self._chance.randrange(10)]) + b"\0\0\0\0\1"
        yield bytes(self._chance.randrange(100_000))

    def attack_wrong_padding(self) -> Iterator[bytes]:
        yield PREFACE + SETTINGS + self._headers(1, _head(self._path, self._key))
        yield b"\0\0\2\0\x08\0\0\0\1\xff\0"

    def attack_many_calls_never_ended(self) -> Iterator[bytes]:
        yield PREFACE + SETTINGS
        for stream_id in range(1, 301, 2):
            yield self._headers(stream_id, _head(self._path, self._key))

    def attack_path_that_is_no_text(self) -> Iterator[bytes]:
        path = self._path.encode() + self._chance.choice((b"\xaf", b"\xff\xfe", b"\xed\xa0\x80"))
        headers = [(name, value) for name, value in _head("", self._key) if name != ":path"]
        yield PREFACE + SETTINGS + self._call_of([*headers[:2], (":path", path), *headers[2:]])

    def attack_odd_call(self) -> Iterator[bytes]:
        """A right connection with a call that is odd in what gRPC itself reads."""
        chance = self._chance
        odd = chance.choice(
            [("grpc-timeout", timeout) for timeout in TIMEOUTS]
            + [
                ("grpc-encoding", "zstd"),
                ("grpc-accept-encoding", "," * 500),
                ("x-thing-bin", "!!not base64!!"),
                ("grpc-status-details-bin", "////"),
                ("content-type", "application/json"),
                ("te", "gzip"),
                (":method", "GET"),
                (":path", "nowhere"),
                (":authority", "again"),
                ("authorization", "\u00ff"),
                ("grpc-tags-bin", "AAAA"),
                ("x-nul", "a\0b"),
                ("UPPER", "case"),
            ]
        )
        message = chance.choice(
            (
                self._message,
                self._message[:3],
                b"\0\xff\xff\xff\xff",
                b"\x02" + self._message[1:],
                self._message + b"\0",
            )
        )
        yield PREFACE + SETTINGS + self._call(1, odd, message=message)


def grpc_endings(answer: bytes) -> list[tuple[int, bool]]:
    """`grpc-status` of each call that the server answered, and whether our code said it and not gRPC's transport.

    To what is no gRPC the transport itself answers INTERNAL, by gRPC's rules; all that we say comes with details.
    """
    found, decoder = [], hpack.Decoder()
    while len(answer) >= 9:
        length, kind = int.from_bytes(answer[:3], "big"), answer[3]
        block, answer = answer[9 : 9 + length], answer[9 + length :]
        if kind == HeadersFrame.type:
            headers = dict(decoder.decode(block))
            if "grpc-status" in headers:
                found.append((int(headers["grpc-status"]), "grpc-status-details-bin" in headers))
    return found
