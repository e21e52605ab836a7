"""The guard of forgotten sessions: tells the store what is alive here, and ends what came to its end by itself.

Every control process has one. Which of them ends a session does not matter: the store decides, once, and the bill ends
at the moment of the limit.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.domain.session_use import Use
from tidemill_services.session_signs import Holding, SessionSigns
from tidemill_services.session_streams import SessionStreams
from tidemill_services.store import session_activity
from tidemill_services.store.database import REST_SECONDS, Database
from tidemill_services.store.session_activity import ACTIVITY_LEASE_MS, CountedNews, News
from tidemill_services.store.topics import MODELS

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # between two looks at the most: limits may be set in other processes too
PAUSE_SECONDS = 0.5  # between two of them at the least
RENEW_SECONDS = ACTIVITY_LEASE_MS / 1000 / 3
GOODBYE_SECONDS = 5.0  # to tell the store what ran last, when the process stops
HEARING_SECONDS = 60.0  # of unbroken hearing before silent holders are given up: three heartbeats

Key = TypeVar("Key", str, Holding)


@dataclass(frozen=True, slots=True)
class _Uncounted:
    """What counts once. Times are on the clock of `time.monotonic`."""

    number: int
    waits: Mapping[str, Sequence[tuple[float, float]]]
    uses: Mapping[str, Use]

    def at(self, now: float) -> CountedNews:
        """The same as it is told now."""
        waits = {
            session_id: [(round((now - since) * 1000), round((now - until) * 1000)) for since, until in times]
            for session_id, times in self.waits.items()
        }
        return CountedNews(self.number, waits, self.uses)


class SessionGuard:
    """Ends sessions at their limits, and those whose holders are lost. `run` for the process's life."""

    def __init__(self, database: Database, process_id: str, streams: SessionStreams, signs: SessionSigns) -> None:
        self._database = database
        self._process_id = process_id
        self._streams = streams
        self._signs = signs
        self._told_running: frozenset[str] = frozenset()
        self._told_at = -float("inf")
        self._ends: dict[str, float] = {}  # what the store has not been told of yet
        self._told_waiting: frozenset[str] = frozenset()
        self._heard: dict[Holding, float] = {}
        self._uncounted: _Uncounted | None = None  # told, perhaps, and not known to have come
        self._last_number = 0
        self._telling = asyncio.Lock()
        self._hearing_since: float | None = None  # None: the store is away, so that nobody can be heard
        self._may_look_at = -float("inf")
        self._rests = False  # nothing is open, and nothing runs here

    async def run(self) -> None:
        """Tell and look until cancelled; then tell that nothing runs here any more."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch_store(), name="session-guard-watch")
                while True:
                    wait_seconds = await self._turn()
                    await asyncio.sleep(PAUSE_SECONDS)
                    try:
                        async with asyncio.timeout(max(0.0, wait_seconds - PAUSE_SECONDS)):
                            await self._streams.used.wait()
                    except TimeoutError:
                        continue
        finally:
            await self._say_goodbye()

    async def _watch_store(self) -> None:
        """End the rest when a session may have been started."""
        changes = self._database.changes(MODELS)
        changes.rest_seconds = REST_SECONDS
        async for _ in changes:
            if self._rests:
                self._streams.used.set()

    async def _turn(self) -> float:
        """Tell the news, then look; return how many seconds to wait for the next turn."""
        self._rests = False
        moment = self._database.moment
        try:
            await self.tell()
            left_ms = await self._look()
        except StoreUnavailableError as error:
            if self._hearing_since is not None:
                logger.warning("sessions do not end by themselves as long as the store is away: %s", error)
            self._hearing_since = None
            self._may_look_at = time.monotonic() + ACTIVITY_LEASE_MS / 1000  # other processes have to tell theirs first
            return LOOK_SECONDS
        if left_ms is not None:
            return min(LOOK_SECONDS, left_ms / 1000)
        self._rests = not self._told_running and not self._database.changed_since(MODELS, moment)
        return REST_SECONDS if self._rests else LOOK_SECONDS

    async def tell(self) -> None:
        """Tell the store now what it has not been told yet. Raises StoreUnavailableError."""
        async with self._telling:
            await self._tell()

    async def _tell(self) -> None:
        self._streams.used.clear()
        running = self._streams.session_ids
        waiting = {session_id: at for session_id, at in self._streams.waits.long_since.items() if session_id in running}
        self._ends |= self._streams.take_ends()
        self._heard |= self._signs.take()
        counted = self._take_uncounted()
        now = time.monotonic()
        is_due = bool(running) and now - self._told_at >= RENEW_SECONDS
        is_same = running == self._told_running and waiting.keys() == self._told_waiting
        if is_same and not (self._ends or self._heard or counted or is_due):
            return
        news = News(
            running,
            _ago_ms(self._ends, now),
            _ago_ms(self._heard, now),
            _ago_ms(waiting, now),
            None if counted is None else counted.at(now),
        )
        await self._database.write(session_activity.tell_activity, self._process_id, news)
        self._told_running, self._told_waiting, self._told_at = running, frozenset(waiting), now
        self._ends, self._heard, self._uncounted = {}, {}, None

    def _take_uncounted(self) -> "_Uncounted | None":
        """What is to be counted once; the same again until it is known to have come."""
        if self._uncounted is None:
            waits, uses = self._streams.waits.take_ended(), self._streams.take_uses()
            if waits or uses:
                self._last_number += 1
                self._uncounted = _Uncounted(self._last_number, waits, uses)
        return self._uncounted

    async def _look(self) -> int | None:
        now = time.monotonic()
        if self._hearing_since is None:
            self._hearing_since = now
        left_ms = await self._database.read(session_activity.time_to_look_ms)
        if left_ms != 0 or now < self._may_look_at:
            return left_ms
        holders_are_heard = now - self._hearing_since >= HEARING_SECONDS
        return await self._database.write(session_activity.look_at_sessions, holders_are_heard=holders_are_heard)

    async def _say_goodbye(self) -> None:
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self.tell()
        except (StoreUnavailableError, TimeoutError):
            logger.warning("what ran last could not be told; it is forgotten by itself")


def _ago_ms(times: Mapping[Key, float], now: float) -> dict[Key, int]:
    return {key: max(0, round((now - at) * 1000)) for key, at in times.items()}
