"""Tells the store what this process runs and has waiting: the signal that scales, and wakes, models."""

import asyncio
import logging

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.scaler.pool import Pools
from tidemill_services.store.database import Database
from tidemill_services.store.demand import DEMAND_LEASE_MS, Demand, publish_demand

logger = logging.getLogger(__name__)

PUBLISH_SECONDS = DEMAND_LEASE_MS / 1000 / 5


class DemandPublisher:
    """Publishes each second while there is demand, and at once when somebody begins to wait for a sleeping model."""

    def __init__(self, database: Database, process_id: str, pools: Pools) -> None:
        self._database = database
        self._process_id = process_id
        self._pools = pools
        self._came = asyncio.Event()
        self._is_published = False  # the store knows of some demand of ours

    def something_runs(self) -> None:
        """A generation began; the store hears of it with the next second's count."""
        if not self._is_published:
            self._came.set()

    def somebody_waits(self) -> None:
        """The first one waits for a model that is not there: the store hears of it at once."""
        self._came.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            demand = self._count()
            if demand or self._is_published:
                try:
                    await self._database.write(publish_demand, self._process_id, demand)
                    self._is_published = bool(demand)
                except StoreUnavailableError as error:
                    logger.warning("the demand could not be told: %s", error)
            try:
                async with asyncio.timeout(PUBLISH_SECONDS if demand or self._is_published else None):
                    await self._came.wait()
            except TimeoutError:
                continue
            self._came.clear()

    def _count(self) -> dict[str, Demand]:
        counted = {model: Demand(pool.num_leased, len(pool.queue)) for model, pool in self._pools.items()}
        return {model: demand for model, demand in counted.items() if demand.total}
