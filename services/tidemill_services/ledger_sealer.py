"""Seals the ledger's rows into blocks while this process leads."""

import asyncio
import logging

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.store import ledger_seal
from tidemill_services.store.database import REST_SECONDS, Database
from tidemill_services.store.leader import leading_epoch
from tidemill_services.store.topics import LEDGER

logger = logging.getLogger(__name__)

SEAL_SECONDS = 0.2  # between two blocks


class LedgerSealer:
    """`run` for the process's life."""

    def __init__(self, database: Database, process_id: str) -> None:
        self._database = database
        self._process_id = process_id

    async def run(self) -> None:
        """Look at each change, and every second while something is left, until cancelled."""
        changes = self._database.changes(LEDGER)
        async for _ in changes:
            changes.rest_seconds = 0.0
            try:
                if await self.seal_all():
                    changes.rest_seconds = REST_SECONDS
            except StoreUnavailableError as error:
                logger.warning("the ledger's blocks wait for the store: %s", error)
            await asyncio.sleep(SEAL_SECONDS)

    async def seal_all(self) -> bool:
        """Seal what is there, if this process leads; return whether nothing is left. Raises StoreUnavailableError."""
        epoch, has_unsealed = await self._database.read(
            lambda tx: (leading_epoch(tx, self._process_id), ledger_seal.has_unsealed(tx))
        )
        while epoch is not None and has_unsealed:
            has_unsealed = await self._database.write(ledger_seal.seal, self._process_id, epoch)
        return not has_unsealed
