"""What a server's memory grows by, request for request."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault.baseline import Baseline, resident_bytes, wait_for_quiet
from tests.fault.callers import Callers, callers_of
from tests.fault.long_answers import long_server_process
from tests.scale import count

pytestmark = pytest.mark.fault

NUM_WARM = count(300, full=500)
NUM_REQUESTS = count(700, full=1_500)
# The short form has fewer requests over which what is allocated once spreads.
MAX_BYTES_A_REQUEST = count(2_048, full=1_024)


async def test_memory_grows_by_less_than_a_kibibyte_a_request(tmp_path: Path, note: Callable[..., None]) -> None:
    chance = random.Random(8)
    with long_server_process(tmp_path, slots=32) as server:
        async with callers_of(server) as callers:
            await _ask(callers, chance, NUM_WARM)
            baseline = Baseline.of(server)
            before = resident_bytes(server.process.pid)
            await _ask(callers, chance, NUM_REQUESTS)
            await asyncio.to_thread(wait_for_quiet, server)
            after = resident_bytes(server.process.pid)
            await asyncio.to_thread(baseline.wait_until_back)
    per_request = (after - before) / NUM_REQUESTS
    assert per_request < MAX_BYTES_A_REQUEST
    note(
        requests=f"{NUM_REQUESTS:,} after {NUM_WARM:,}, of 1 to 60 tokens, a third cancelled",
        memory=f"{before / 2**20:.2f} → {after / 2**20:.2f} MiB, {per_request:.0f} bytes a request",
    )


async def _ask(callers: Callers, chance: random.Random, num_requests: int) -> None:
    left = iter(range(num_requests))

    async def ask() -> None:
        for _ in left:
            if chance.random() < 1 / 3:
                call = callers.call(50_000)
                await asyncio.sleep(chance.uniform(0, 0.2))
                call.cancel()
            else:
                assert (await callers.generate(chance.randrange(1, 60))).ending == "LENGTH"

    await asyncio.gather(*(ask() for _ in range(32)))
