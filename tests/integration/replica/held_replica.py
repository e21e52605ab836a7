"""A replica whose start waits until a test lets it go on: a program of its own, with a replica's command line.

While the file `loading` lies in the folder `HOLD` it listens and does not begin to load; while `warming` does, the fake
device's first runs do not return.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from tidemill_serving.__main__ import main
from tidemill_serving.decoder.devices.fake import FakeDevice
from tidemill_serving.server import Replica

FOLDER = "HOLD"
LOADING, WARMING = "loading", "warming"
PROGRAM = (__file__,)

usual_replica_run, usual_device_run = Replica.run, FakeDevice._run


def is_held(step: str) -> bool:
    """Whether the test holds this step."""
    return (Path(os.environ[FOLDER]) / step).exists()


async def run_replica_unless_held(self):
    """Run as every replica does, once nothing holds its loading."""
    while is_held(LOADING):  # noqa: ASYNC110 -- another process's file
        await asyncio.sleep(0.01)
    return await usual_replica_run(self)


def run_device_unless_held(self, token_ids):
    """Run as the fake device does, once nothing holds its first runs."""
    while is_held(WARMING):
        time.sleep(0.01)
    usual_device_run(self, token_ids)


if __name__ == "__main__":
    Replica.run, FakeDevice._run = run_replica_unless_held, run_device_unless_held  # type: ignore[method-assign]
    sys.exit(main())
