"""LISTEN: hears what other processes committed; keeps the high-water mark of time."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

import psycopg
from psycopg.conninfo import make_conninfo

from tidemill_services.store.watchers import Watchers

CHANNEL = "tidemill"
APPLICATION_NAME = "tidemill-listener"  # by which processes that run are known
# A server that is gone without a word is noticed within seconds, not by the system's two hours.
KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
MARK_SECONDS = 1.0  # between two marks, while this process is given new times
_MAX_BACKOFF_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Listener:
    """One connection of its own, renewed when it is lost; the watchers' slow poll covers the gap."""

    def __init__(self, conninfo: str, watchers: Watchers, newest_ms: Callable[[], int]) -> None:
        """`newest_ms` tells the latest time that any unit of this process was given."""
        self._conninfo = make_conninfo(conninfo, application_name=APPLICATION_NAME, **KEEPALIVES)
        self._watchers = watchers
        self._newest_ms = newest_ms
        watchers.hear_all(hears=False)
        self._task = asyncio.create_task(self._run(), name="store-listener")

    async def close(self) -> None:
        """Disconnect."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        backoff_seconds = 0.1
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self._watchers.hear_all(hears=True)  # what was said before is lost
                    backoff_seconds = 0.1
                    await self._listen(connection)
            except psycopg.Error as error:
                logger.warning("lost the database's notifications, polling until they are back: %s", error)
                self._watchers.hear_all(hears=False)
            await asyncio.sleep(backoff_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects
            backoff_seconds = min(2 * backoff_seconds, _MAX_BACKOFF_SECONDS)

    async def _listen(self, connection: psycopg.AsyncConnection) -> None:
        marked_ms = 0
        while True:
            async for notification in connection.notifies(timeout=MARK_SECONDS):
                self._watchers.wake([notification.payload])
            newest_ms = self._newest_ms()
            if newest_ms > marked_ms:
                await connection.execute("UPDATE clock SET high_water_ms = greatest(high_water_ms, %s)", (newest_ms,))
                marked_ms = newest_ms
