"""The guard of forgotten sessions: tells the store what is alive here, and ends what came to its end by itself.

Every control process has one. Which of them ends a session does not matter: the store decides, once, and the bill ends
at the moment of the limit.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TypeVar

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.session_signs import Holding, SessionSigns
from tidemill_services.session_streams import SessionStreams
from tidemill_services.store import session_activity
from tidemill_services.store.database import Database
from tidemill_services.store.session_activity import ACTIVITY_LEASE_MS, News

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # between two looks at the most: limits may be set in other processes too
PAUSE_SECONDS = 0.5  # between two of them at the least
RENEW_SECONDS = ACTIVITY_LEASE_MS / 1000 / 3
HEARING_SECONDS = 60.0  # of unbroken hearing before silent holders are given up: three heartbeats

Key = TypeVar("Key", str, Holding)


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
        self._heard: dict[Holding, float] = {}
        self._hearing_since: float | None = None  # None: the store is away, so that nobody can be heard
        self._may_look_at = -float("inf")

    async def run(self) -> None:
        """Tell and look until cancelled; then tell that nothing runs here any more."""
        try:
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

    async def _turn(self) -> float:
        """Tell the news, then look; return how many seconds to wait for the next turn."""
        try:
            await self._tell()
            left_ms = await self._look()
        except StoreUnavailableError as error:
            if self._hearing_since is not None:
                logger.warning("sessions do not end by themselves as long as the store is away: %s", error)
            self._hearing_since = None
            self._may_look_at = time.monotonic() + ACTIVITY_LEASE_MS / 1000  # other processes have to tell theirs first
            return LOOK_SECONDS
        return LOOK_SECONDS if left_ms is None else min(LOOK_SECONDS, left_ms / 1000)

    async def _tell(self) -> None:
        self._streams.used.clear()
        running = self._streams.session_ids
        self._ends |= self._streams.take_ends()
        self._heard |= self._signs.take()
        now = time.monotonic()
        is_due = bool(running) and now - self._told_at >= RENEW_SECONDS
        if running == self._told_running and not (self._ends or self._heard or is_due):
            return
        news = News(running, _ago_ms(self._ends, now), _ago_ms(self._heard, now))
        await self._database.write(session_activity.tell_activity, self._process_id, news)
        self._told_running, self._told_at = running, now
        self._ends, self._heard = {}, {}

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
            async with asyncio.timeout(1.0):
                await self._tell()
        except (StoreUnavailableError, TimeoutError):
            logger.warning("what ran last could not be told; it is forgotten by itself")


def _ago_ms(times: Mapping[Key, float], now: float) -> dict[Key, int]:
    return {key: max(0, round((now - at) * 1000)) for key, at in times.items()}
