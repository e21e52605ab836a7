"""Batches of requests around one message: it, others that are like it, and what is left of them after accidents.

Hypothesis makes the messages; the rest is made from these by cheap code of our own, so that tens of thousands of
requests take a minute or two. Chance comes from the run's seed and the batch's number, and what fails is told as bytes
that can be sent again.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing.damage import damaged
from tests.fuzzing.methods import Method
from tests.fuzzing.seeds import SEED, fuzzed
from tests.fuzzing.values import Known
from tests.fuzzing.variants import varied

Base = TypeVar("Base")
MESSAGES_AT_ONCE = 20
NUM_WHOLE = 10  # one of hypothesis and nine varied; ten more are damaged
_TOLD_BYTES = 4_000


def bases(strategy: st.SearchStrategy[Base], name: str, number: int) -> Iterator[tuple[random.Random, Base]]:
    """`number` values of hypothesis, each with a chance of its own. `name`: of the test, apart from all others.

    The chance is not drawn by hypothesis, which likes a few seeds: many batches would be the same.
    """
    drawn: list[Base] = []

    @fuzzed(number)
    @given(strategy)
    def keep(value: Base) -> None:
        drawn.append(value)

    keep()
    for index in range(number):
        yield random.Random(f"{SEED} {name} {index}"), drawn[index % len(drawn)]


def variants_of(chance: random.Random, message: Message, known: Known, right: bytes, number: int) -> list[bytes]:
    """`number` requests that can be read, `message` first. `right` is one that the method takes: varied as well."""
    start = type(message).FromString(right) if right else message
    others = [varied(chance, chance.choice((message, start)), known) for _ in range(number - 1)]
    return [each.SerializeToString() for each in (message, *others)]


def batch_of(chance: random.Random, message: Message, known: Known, right: bytes = b"") -> list[bytes]:
    """`MESSAGES_AT_ONCE` requests, the later ones damaged."""
    whole = variants_of(chance, message, known, right, NUM_WHOLE)
    return whole + [damaged(chance, chance.choice(whole)) for _ in range(MESSAGES_AT_ONCE - NUM_WHOLE)]


@contextmanager
def told(method: Method, contents: Sequence[bytes]) -> Iterator[None]:
    """What fails within says which bytes were sent: `bytes.fromhex` has them again, `Target.send` sends them."""
    try:
        yield
    except AssertionError as error:
        sent = "\n".join(each.hex() if len(each) <= _TOLD_BYTES else f"{len(each)} bytes" for each in contents)
        error.add_note(f"Sent to {method.path}, in hexadecimal:\n{sent}")
        raise
