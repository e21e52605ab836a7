"""Forgets the answers to requests that are too old to be repeated."""

import asyncio
import logging

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.store.database import Database
from tidemill_services.store.requests import NUM_FORGOTTEN_AT_ONCE, forget_expired

LOOK_SECONDS = 60.0

logger = logging.getLogger(__name__)


class ExpiredAnswers:
    """Deletes answers that no repeat gets any more. Any number of processes may."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Look once a minute. Runs until cancelled."""
        while True:
            try:
                while await self._database.write(forget_expired) == NUM_FORGOTTEN_AT_ONCE:
                    continue
            except StoreUnavailableError as error:
                logger.warning("expired answers stay in the store for now: %s", error)
            await asyncio.sleep(LOOK_SECONDS)
