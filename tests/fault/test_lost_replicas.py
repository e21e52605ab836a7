"""Replicas that are killed under a whole server: typed ends, and a replacement."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault.baseline import Baseline, replicas_of
from tests.fault.callers import callers_of, first_text, read
from tests.fault.figures import counts, times
from tests.fault.long_answers import long_server_process
from tests.processes import is_alive
from tests.scale import bound, count

pytestmark = pytest.mark.fault

NUM_STREAMS = 8
LOST = "ERROR REPLICA_LOST"


async def test_streams_of_a_killed_replica_end_typed_and_the_next_request_works(
    tmp_path: Path, note: Callable[..., None]
) -> None:
    chance = random.Random(3)
    told: list[float] = []
    replaced: list[float] = []
    endings: list[str] = []
    with long_server_process(tmp_path) as server:
        async with callers_of(server) as callers:
            await callers.generate(5)
            baseline = Baseline.of(server)
            for _ in range(count(2, full=50)):
                calls = [callers.call(50_000) for _ in range(NUM_STREAMS)]
                answers = await asyncio.gather(*(first_text(call) for call in calls))
                await asyncio.sleep(chance.uniform(0, 0.3))
                (replica,) = replicas_of(server)
                os.kill(replica, signal.SIGKILL)
                killed = time.monotonic()
                answers = await asyncio.gather(*(read(*pair) for pair in zip(calls, answers, strict=True)))
                told.append(time.monotonic() - killed)
                endings += [answer.ending for answer in answers]
                # Nothing is charged beyond what was handed out.
                assert all(answer.end and answer.end.usage.completion_tokens == answer.num_tokens for answer in answers)
                assert (await callers.generate(5)).ending == "LENGTH"
                replaced.append(time.monotonic() - killed)
                assert not is_alive(replica)
            await asyncio.to_thread(baseline.wait_until_back)
    assert set(endings) == {LOST}, counts(endings)
    assert max(told) < bound(2, busy=60)
    assert max(replaced) < bound(10, busy=100)
    note(kills=len(told), streams=counts(endings), typed_end_after=times(told), replaced_after=times(replaced))
