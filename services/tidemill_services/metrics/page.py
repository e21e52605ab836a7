"""The page `/metrics`: what this process did and holds, and what the store says of sessions."""

import asyncio

from prometheus_client.exposition import generate_latest

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.metrics.process import Metrics
from tidemill_services.store.database import Database
from tidemill_services.store.session_counts import OpenSessions, count_open_sessions

STORE_SECONDS = 5.0  # half of what Prometheus waits for; a page without the store's answer is better than none


class ProcessPage:
    """Reads the page. Call it in the event loop, which alone changes what is counted."""

    def __init__(self, metrics: Metrics, database: Database) -> None:
        self._metrics = metrics
        self._database = database

    async def read(self) -> bytes:
        """The page's text, in Prometheus' format."""
        open_sessions = await self._count_open_sessions()
        self._metrics.sessions.show_open(open_sessions)
        for model, _ in open_sessions:
            self._metrics.generations.of(model)  # counters begin at 0, so that their first increase is seen
        return generate_latest(self._metrics.registry)

    async def _count_open_sessions(self) -> OpenSessions:
        try:
            async with asyncio.timeout(STORE_SECONDS):
                return await self._database.read(count_open_sessions)
        except (StoreUnavailableError, TimeoutError):
            return {}
