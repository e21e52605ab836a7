"""A process that keeps two spares, says so, and then does nothing until it is killed."""

import asyncio
import signal
import sys

from tests.integration.scaler.spare_processes import running_spares


async def main() -> None:
    """Keep them, say `ready`, and wait."""
    async with running_spares(2):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background inherits that it is ignored
asyncio.run(main())
