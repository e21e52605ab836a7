"""Spare processes, as a server has them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.integration.scaler.platform import eventually
from tidemill_services.scaler.spares import Spares

SPARE_SECONDS = 100.0  # it only takes time that nobody wants


@asynccontextmanager
async def running_spares(num_wanted: int, *, quiet_seconds: float = 0.0) -> AsyncIterator[Spares]:
    """So many, ready; they end with the block."""
    spares = Spares(num_wanted, quiet_seconds=quiet_seconds)
    running = asyncio.create_task(spares.run(), name="spares")
    try:
        await eventually(lambda: spares.num_ready == num_wanted, seconds=SPARE_SECONDS)
        yield spares
    finally:
        running.cancel()
        await asyncio.wait({running})
