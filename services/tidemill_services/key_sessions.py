"""Ends what keys began that are no longer valid: the sessions of expired ones, and streams that their tokens pay.

The sessions of a key that is revoked end in the transaction that revokes it.
"""

import logging

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.session_streams import SessionStreams
from tidemill_services.store import api_keys
from tidemill_services.store.database import Database
from tidemill_services.store.topics import KEYS

LOOK_SECONDS = 2.0

logger = logging.getLogger(__name__)


class KeySessions:
    """Looks for open sessions, and for streams of this process, whose key is no longer valid. Any number may."""

    def __init__(self, database: Database, streams: SessionStreams) -> None:
        self._database = database
        self._streams = streams

    async def run(self) -> None:
        """Look every two seconds, and when a key changed. Runs until cancelled."""
        async for _ in self._database.changes(KEYS, poll_seconds=LOOK_SECONDS):
            try:
                if await self._database.read(api_keys.keys_with_sessions_to_end):
                    await self._database.write(api_keys.end_sessions_of_ended_keys)
                if self._streams.key_ids:
                    for key_id in await self._database.read(api_keys.ended_keys, self._streams.key_ids):
                        self._streams.stop_key(key_id)
            except StoreUnavailableError as error:
                logger.warning("what keys began that are no longer valid goes on for now: %s", error)
