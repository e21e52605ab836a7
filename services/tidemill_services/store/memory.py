"""Answers of the store that every call asks for: kept for a moment, and no longer than they are unchanged."""

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

    What a unit raises is not kept: whoever puts right what was missing must not wait.
    """

    def __init__(self, database: Database, topic_of: Callable[[K, V], str]) -> None:
        self._database = database
        self._topic_of = topic_of
        self._kept: dict[K, tuple[V, str, int, float]] = {}  # the value, its topic, the moment and time of the question

    def holds(self, key: K) -> bool:
        """Whether nothing was heard since what is kept under the key was asked for."""
        kept = self._kept.get(key)
        return kept is not None and not self._database.changed_since(kept[1], kept[2])

    async def ask(
        self, key: K, unit: Callable[Concatenate[Transaction, P], V], /, *args: P.args, **kwargs: P.kwargs
    ) -> V:
        """What is kept under the key, else what the unit reads, kept from now on. Raises what the unit raises."""
        database, now = self._database, time.monotonic()
        kept = self._kept.get(key)
        if kept is not None:
            value, topic, moment, asked = kept
            if now - asked < FRESH_SECONDS and not database.changed_since(topic, moment):
                return value
            del self._kept[key]
        moment = database.moment
        value = await database.read(unit, *args, **kwargs)
        if len(self._kept) >= MAX_REMEMBERED:
            self._kept.clear()
        self._kept[key] = (value, self._topic_of(key, value), moment, now)
        return value
