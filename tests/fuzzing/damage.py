"""Bytes that are no message, or nearly one."""

import random
from collections.abc import Callable

MAX_VARINT = b"\xff" * 9 + b"\x01"


def damaged(chance: random.Random, content: bytes) -> bytes:
    """What is left of `content` after an accident."""
    accident: Callable[[random.Random, bytes], bytes] = chance.choice(_ACCIDENTS)
    return accident(chance, content)


def _replaced(chance: random.Random, _content: bytes) -> bytes:
    return chance.randbytes(chance.choice((0, 1, 2, 7, 40, 400)))


def _cut(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _flipped(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(chance.randrange(1, 8)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _spliced(chance: random.Random, content: bytes) -> bytes:
    start, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start:]


def _with_unknown_fields(chance: random.Random, content: bytes) -> bytes:
    """Fields that no message has, whole and broken, of each wire type; groups within groups; a huge length."""
    extras = (
        b"\xf8\xff\xff\xff\x0f" + MAX_VARINT,  # the largest field number
        b"\xa0\x06\x01",
        b"\xa2\x06\x03abc",
        b"\xa3\x06" * 300 + b"\xa4\x06" * 300,  # deeper than any parser goes
        b"\xa3\x06\xa4\x06",
        b"\xa2\x06" + MAX_VARINT,
        b"\x00\x00",  # field number 0
        b"\x0f\x0f",  # a wire type that is none
        b"\x0a\x02\xff\xfe",  # text that is not UTF-8
        b"\x12\x02\xc0\x80",
        b"\x1a\x03\xed\xa0\x80",  # a surrogate
    )
    return content + b"".join(chance.choices(extras, k=chance.randrange(1, 4)))


_ACCIDENTS = (_replaced, _cut, _flipped, _flipped, _spliced, _with_unknown_fields)
