"""What follows a stop: the session's streams may finish for a while, then they are ended, then the session is over.

It follows the store, not the call that stopped the session: so it holds whoever stopped it, in whichever process, and
also when that caller went away.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.domain.session import EndReason
from tidemill_services.session_streams import SessionStreams
from tidemill_services.store import hosts, sessions
from tidemill_services.store.database import REST_SECONDS, Database, Transaction
from tidemill_services.store.topics import MODELS

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # while a stopped session has not ended


@dataclass(frozen=True, slots=True)
class _Stopped:
    """A session that was stopped, as one look at the store shows it."""

    session_id: str
    left_ms: int  # that its streams may still run
    may_end: bool  # whether nobody else can have streams of it


class SessionDrains:
    """Drains the sessions of this process's streams. The bill was final before; a drain costs nothing."""

    def __init__(
        self, database: Database, streams: SessionStreams, grace_seconds: float, tell: Callable[[], Awaitable[None]]
    ) -> None:
        """`tell` tells the store what ran here."""
        self._database = database
        self._tell = tell
        self._streams = streams
        self._grace_ms = round(grace_seconds * 1000)
        self._some_are_stopped = True
        self._timers: dict[str, asyncio.TimerHandle] = {}  # by session

    async def run(self) -> None:
        """Look whenever a session changed, or a stopped one's last call ended here. Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_store(), name="session-drains-watch")
            while True:
                await self._wait_for_change()
                self._streams.changed.clear()
                self._some_are_stopped = True  # unless the look says otherwise
                try:
                    self._some_are_stopped = await self._look()
                except StoreUnavailableError as error:
                    logger.warning("stopped sessions are not drained yet: %s", error)

    async def _watch_store(self) -> None:
        changes = self._database.changes(MODELS)
        changes.rest_seconds = REST_SECONDS
        async for _ in changes:
            self._streams.look()

    async def _wait_for_change(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS if self._some_are_stopped else None):
                await self._streams.changed.wait()
        except TimeoutError:
            return

    async def _look(self) -> bool:
        """Drain those that were stopped; return whether there are any."""
        found = await self._database.read(_find_stopped, self._streams.session_ids, self._grace_ms)
        for stopped in found:
            if stopped.session_id in self._streams.session_ids:  # now: its last call may have ended while we read
                self._drain(stopped)
            elif stopped.may_end:
                await self._tell()  # so that what ran in the drain stands in the session's last row
                await self._database.write(sessions.finish_session, stopped.session_id)
        return bool(found)

    def _drain(self, stopped: _Stopped) -> None:
        session_id = stopped.session_id
        self._streams.drain_session(session_id)
        if stopped.left_ms <= 0:
            self._streams.stop_session(session_id)
        elif session_id not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[session_id] = loop.call_later(stopped.left_ms / 1000, self._time_is_over, session_id)

    def _time_is_over(self, session_id: str) -> None:
        del self._timers[session_id]
        self._streams.stop_session(session_id)


def _find_stopped(tx: Transaction, session_ids: frozenset[str], grace_ms: int) -> list[_Stopped]:
    """Those of `session_ids` that were stopped, and every session that is STOPPING.

    One whose clock never ran may not run on: its streams have had nothing yet, and nothing pays for them. Nor may one
    whose key was revoked: nobody knows who reads them.
    """
    is_alone = hosts.count_live_hosts(tx) <= 1
    found = []
    for session in sessions.list_stopped(tx, session_ids):
        may_finish = session.start_ms is not None and session.end_reason is not EndReason.REVOKED
        until_ms = (session.end_ms or 0) + (grace_ms if may_finish else 0)
        left_ms = until_ms - tx.now_ms
        found.append(_Stopped(session.session_id, left_ms, may_end=is_alone or left_ms <= 0))
    return found
