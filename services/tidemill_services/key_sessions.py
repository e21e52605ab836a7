"""Ends the sessions of keys that have expired.

Those of a key that is revoked end in the transaction that revokes it.
"""

import logging

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.store import api_keys
from tidemill_services.store.database import Database
from tidemill_services.store.topics import KEYS

LOOK_SECONDS = 2.0

logger = logging.getLogger(__name__)


class KeySessions:
    """Looks for open sessions whose key is no longer valid. Any number of processes may."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Look every two seconds, and when a key changed. Runs until cancelled."""
        async for _ in self._database.changes(KEYS, poll_seconds=LOOK_SECONDS):
            try:
                if await self._database.read(api_keys.keys_with_sessions_to_end):
                    await self._database.write(api_keys.end_sessions_of_ended_keys)
            except StoreUnavailableError as error:
                logger.warning("the sessions of expired keys go on for now: %s", error)
