"""No replica outlives the process that launched it, however that one ends."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.integration.scaler.platform import eventually
from tests.integration.scaler.processes import replica_pids

TINY_LLAMA = Path(__file__).parents[2] / "models" / "tiny-llama"
PARENT = Path(__file__).with_name("parent.py")

pytestmark = pytest.mark.fault


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_replicas_end_with_their_parent(number: signal.Signals) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, str(PARENT), str(TINY_LLAMA), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"ready\n"
    assert len(replica_pids(parent.pid)) == 2
    parent.send_signal(number)
    await parent.wait()
    await eventually(lambda: not replica_pids(parent.pid))


async def test_a_parent_killed_while_it_launches_leaves_nothing() -> None:
    for seconds in (0.4, 0.5, 0.6, 0.7, 0.8):
        parent = await asyncio.create_subprocess_exec(
            sys.executable, str(PARENT), str(TINY_LLAMA), stdout=asyncio.subprocess.PIPE
        )
        await asyncio.sleep(seconds)
        parent.kill()
        await parent.communicate()
        await eventually(lambda: not replica_pids(parent.pid))  # noqa: B023 -- awaited in the loop
