"""Answers of the store that every call asks for: kept for a moment, and no longer than they are unchanged."""

import asyncio
import time
from collections.abc import Callable, Hashable
from typing import Concatenate, Generic, ParamSpec, TypeVar

from tidemill_services.store.database import Database, Transaction

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
P = ParamSpec("P")

FRESH_SECONDS = 2.0  # what another process changed is seen after this time at the latest, whatever was heard of it
MAX_REMEMBERED = 10_000


class Memory(Generic[K, V]):
    """Values by key. One is forgotten when it is old, or when its topic changed after the moment it was asked for in.

    What a unit raises is not kept: whoever puts right what was missing must not wait. Those who ask for the same at
    once share one question.
    """

    def __init__(self, database: Database, topic_of: Callable[[K, V], str]) -> None:
        self._database = database
        self._topic_of = topic_of
        self._kept: dict[K, tuple[V, str, int, float]] = {}  # the value, its topic, the moment and time of the question
        self._asking: dict[K, asyncio.Event] = {}  # set when the store has answered

    def holds(self, key: K) -> bool:
        """Whether nothing was heard since what is kept under the key was asked for."""
        kept = self._kept.get(key)
        return kept is not None and not self._database.changed_since(kept[1], kept[2])

    async def ask(
        self, key: K, unit: Callable[Concatenate[Transaction, P], V], /, *args: P.args, **kwargs: P.kwargs
    ) -> V:
        """What is kept under the key, else what the unit reads, kept from now on. Raises what the unit raises."""
        kept = self._fresh(key)
        if kept is None and (answered := self._asking.get(key)) is not None:
            await answered.wait()  # another one asks just now; what it is told that was raised is not for us
            kept = self._fresh(key)
        if kept is not None:
            return kept[0]
        answered = self._asking[key] = asyncio.Event()
        try:
            moment, now = self._database.moment, time.monotonic()
            value = await self._database.read(unit, *args, **kwargs)
        finally:
            answered.set()
            if self._asking.get(key) is answered:
                del self._asking[key]
        if len(self._kept) >= MAX_REMEMBERED:
            self._kept.clear()
        self._kept[key] = (value, self._topic_of(key, value), moment, now)
        return value

    def _fresh(self, key: K) -> tuple[V, str, int, float] | None:
        """What is kept under the key, unless it is old or its topic changed."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        _, topic, moment, asked = kept
        if time.monotonic() - asked < FRESH_SECONDS and not self._database.changed_since(topic, moment):
            return kept
        del self._kept[key]
        return None
