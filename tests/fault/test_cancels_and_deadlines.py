"""Calls that end at any moment, by their callers or by their deadlines, leave nothing behind."""

import asyncio
import collections
import math
import random
from collections.abc import Callable

import grpc
import pytest

from tests.fault.baseline import Baseline
from tests.fault.callers import Callers, callers_of
from tests.fault.figures import counts
from tests.fault.long_answers import LONG_LLAMA
from tests.scale import count
from tests.server_process import ServerProcess
from tidemill.v1 import inference_pb2

pytestmark = pytest.mark.fault

NUM_CALLERS = 40  # at once; the replica has 8 slots, so that most of them wait


async def test_cancels_at_random_points_leave_nothing_behind(
    long_server: ServerProcess, note: Callable[..., None]
) -> None:
    chance = random.Random(5)
    ways = collections.Counter[str]()
    num_cancels = count(400, full=10_000)
    async with callers_of(long_server) as callers:
        await callers.generate(5)
        baseline = Baseline.of(long_server)
        left = iter(range(num_cancels))

        async def cancel_some() -> None:
            for _ in left:
                way = chance.choice(("at once", "after a time", "after a message", "batch"))
                await _cancel_one(callers, chance, way)
                ways[way] += 1

        await asyncio.gather(*(cancel_some() for _ in range(NUM_CALLERS)))
        took = await asyncio.to_thread(baseline.wait_until_back)
        assert (await callers.generate(5)).ending == "LENGTH"
    note(cancels=counts(ways.elements()), back_at_the_baseline=f"{took:.2f} s")


async def _cancel_one(callers: Callers, chance: random.Random, way: str) -> None:
    if way == "batch":
        request = inference_pb2.GenerateBatchRequest(
            model=LONG_LLAMA,
            inputs=[inference_pb2.Input(prompt=f"prompt {number}") for number in range(chance.randrange(1, 20))],
            options=inference_pb2.GenerationOptions(max_tokens=20),
        )
        batch = callers.inference.GenerateBatch(request, metadata=callers.metadata)
        await asyncio.sleep(chance.uniform(0, 0.2))
        batch.cancel()
        return
    call = callers.call(2_000)
    if way == "after a time":
        await asyncio.sleep(chance.uniform(0, 0.3))
    elif way == "after a message":
        try:
            async for _ in call:
                if chance.random() < 0.2:
                    break
        except grpc.RpcError as refused:  # by the queue, when many batches wait in it
            if refused.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
    call.cancel()


async def test_deadlines_from_a_microsecond_to_a_second_end_as_such_and_leave_nothing_behind(
    long_server: ServerProcess, note: Callable[..., None]
) -> None:
    chance = random.Random(6)
    endings: list[str] = []
    async with callers_of(long_server) as callers:
        await callers.generate(5)
        baseline = Baseline.of(long_server)
        left = iter(range(count(200, full=4_000)))

        async def ask() -> None:
            for _ in left:
                seconds = math.exp(chance.uniform(math.log(1e-6), math.log(1.0)))
                answer = await callers.generate(chance.choice((1, 20, 2_000)), seconds=seconds)
                endings.append(answer.ending)

        await asyncio.gather(*(ask() for _ in range(20)))
        took = await asyncio.to_thread(baseline.wait_until_back)
        assert (await callers.generate(5)).ending == "LENGTH"
    in_time = {"LENGTH", "ERROR DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED DEADLINE_EXCEEDED"}
    assert set(endings) <= in_time, counts(endings)
    note(endings=counts(endings), back_at_the_baseline=f"{took:.2f} s")
