"""Replicas that show no life in mid-stream, frozen as a whole or with a wedged engine, under a whole server: typed ends
within seconds, a replica that serves again or is replaced, no bill for the time in between.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fault.baseline import Baseline, gauges, replicas_of
from tests.fault.callers import Answer, Callers, callers_of, first_text, read
from tests.fault.figures import counts, times
from tests.fault.long_answers import long_server_process
from tests.fault.wedging import replica as wedging_replica
from tests.fault.wedging import server as wedging_server
from tests.processes import is_alive
from tests.scale import IS_FULL, bound, count
from tests.server_process import ServerProcess

pytestmark = pytest.mark.fault

NUM_STREAMS = 6  # of 8 slots and 2 places more
UNRESPONSIVE_SECONDS = count(8, full=60)


@dataclass
class GivenUp:
    """What became of the streams of a replica that showed no life."""

    began: float  # when the replica showed life last
    not_ready_after: float
    ended_after: float
    answers: list[Answer]
    unshown: asyncio.Task[Answer]  # was sent there, and had nothing to show when the others ended

    def check(self) -> None:
        assert {answer.ending for answer in self.answers} == {"ERROR REPLICA_LOST"}
        # Nothing is charged beyond what was handed out.
        assert all(answer.end and answer.end.usage.completion_tokens == answer.num_tokens for answer in self.answers)
        assert self.ended_after < bound(7, busy=100)
        assert self.ended_after - self.not_ready_after < bound(2, busy=60)


def wedging(wedges: Path) -> dict[str, str]:
    """How to start a server whose replicas can be wedged."""
    return {
        "program": wedging_server.PROGRAM,
        wedging_server.UNRESPONSIVE: str(UNRESPONSIVE_SECONDS),
        wedging_replica.FOLDER: str(wedges),
    }


async def give_up(server: ServerProcess, callers: Callers, stop_life: Callable[[], object]) -> GivenUp:
    """Have the one replica show no life in the middle of streams; return when they have ended."""
    calls = [callers.call(50_000) for _ in range(NUM_STREAMS)]
    answers = await asyncio.gather(*(first_text(call) for call in calls))
    stop_life()
    stopped = time.monotonic()
    unshown = asyncio.create_task(callers.generate(5))
    ends = asyncio.gather(*(read(*pair) for pair in zip(calls, answers, strict=True)))
    while gauges(server)["tidemill_ready_replicas"]:
        assert time.monotonic() - stopped < bound(7, busy=100)
        await asyncio.sleep(0.02)
    not_ready_after = time.monotonic() - stopped
    await ends
    ended_after = time.monotonic() - stopped
    return GivenUp(stopped, not_ready_after, ended_after, ends.result(), unshown)


def least_unbilled(seconds: float, num_times: int = 1) -> float:
    """What must be missing in the bill of replicas that showed no life for so long; a starved server hears late."""
    return seconds - num_times if IS_FULL else seconds / 3


class Meter:
    """How much of a time is billed to the key's session."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def start(self) -> "Meter":
        """Read it now."""
        self._before = (await self._callers.start()).bill.billed_milliseconds
        self._began = time.monotonic()
        return self

    async def stop(self) -> None:
        """End the session, and read it again."""
        self.wall_seconds = time.monotonic() - self._began
        self.billed_seconds = ((await self._callers.stop()).bill.billed_milliseconds - self._before) / 1000
        self.unbilled_seconds = self.wall_seconds - self.billed_seconds


async def test_streams_of_a_frozen_replica_end_typed_and_once_it_runs_on_it_serves_again(
    tmp_path: Path, note: Callable[..., None]
) -> None:
    rounds: list[GivenUp] = []
    frozen_seconds = 0.0
    with long_server_process(tmp_path) as server:
        async with callers_of(server) as callers:
            await callers.generate(5)
            baseline = Baseline.of(server)
            meter = await Meter(callers).start()
            (replica,) = replicas_of(server)
            for _ in range(count(1, full=10)):
                given_up = await give_up(server, callers, lambda: os.kill(replica, signal.SIGSTOP))
                frozen_seconds += time.monotonic() - given_up.began
                assert not given_up.unshown.done()
                os.kill(replica, signal.SIGCONT)
                given_up.check()
                rounds.append(given_up)
                assert (await given_up.unshown).ending == "LENGTH"
                assert (await callers.generate(5)).ending == "LENGTH"
                assert replicas_of(server) == [replica]
            back = await asyncio.to_thread(baseline.wait_until_back)  # what it made late took no slot, and no buffer
            await meter.stop()
    assert meter.unbilled_seconds > least_unbilled(frozen_seconds, len(rounds))
    note(
        freezes=len(rounds),
        streams=counts(answer.ending for given_up in rounds for answer in given_up.answers),
        not_ready_after=times(given_up.not_ready_after for given_up in rounds),
        typed_end_after=times(given_up.ended_after for given_up in rounds),
        back_at_the_baseline=f"{back:.2f} s",
        billed=f"{meter.billed_seconds:.2f} s of {meter.wall_seconds:.2f} s, frozen for {frozen_seconds:.2f} s",
    )


@pytest.mark.parametrize(
    "way", ["wedged", pytest.param("frozen", marks=pytest.mark.skipif(not IS_FULL, reason="15 s"))]
)
@pytest.mark.rule("S7")
async def test_a_replica_that_shows_no_life_any_more_is_replaced_and_billed_to_its_last_life(
    tmp_path: Path, note: Callable[..., None], way: str
) -> None:
    wedges = tmp_path / "wedges"
    wedges.mkdir()
    with long_server_process(tmp_path, **wedging(wedges)) as server:
        async with callers_of(server) as callers:
            await callers.generate(5)
            (replica,) = replicas_of(server)
            meter = await Meter(callers).start()
            given_up = await give_up(
                server,
                callers,
                (wedges / str(replica)).touch if way == "wedged" else lambda: os.kill(replica, signal.SIGSTOP),
            )
            given_up.check()
            while is_alive(replica):
                assert time.monotonic() - given_up.began < bound(65, busy=200)
                await asyncio.sleep(0.05)
            killed_after = time.monotonic() - given_up.began
            assert (await given_up.unshown).ending == "LENGTH"
            assert (await callers.generate(5)).ending == "LENGTH"
            answered_after = time.monotonic() - given_up.began
            await meter.stop()
    assert meter.unbilled_seconds > least_unbilled(killed_after)
    note(
        streams=counts(answer.ending for answer in given_up.answers),
        not_ready_after=f"{given_up.not_ready_after:.2f} s",
        typed_end_after=f"{given_up.ended_after:.2f} s",
        killed_after=f"{killed_after:.2f} s",
        next_request_answered_after=f"{answered_after:.2f} s",
        billed=f"{meter.billed_seconds:.2f} s of {meter.wall_seconds:.2f} s",
    )


@pytest.mark.skipif(not IS_FULL, reason="17 s; tests/integration/replica/test_wall.py has the same of one client")
async def test_a_server_that_stood_still_itself_blames_no_replica(tmp_path: Path, note: Callable[..., None]) -> None:
    with long_server_process(tmp_path) as server:
        async with callers_of(server) as callers:
            await callers.generate(5)
            calls = [callers.call(1_500) for _ in range(NUM_STREAMS)]
            answers = await asyncio.gather(*(first_text(call) for call in calls))
            os.kill(server.process.pid, signal.SIGSTOP)
            await asyncio.sleep(9)
            os.kill(server.process.pid, signal.SIGCONT)
            answers = await asyncio.gather(*(read(*pair) for pair in zip(calls, answers, strict=True)))
    assert {answer.ending for answer in answers} == {"LENGTH"}
    note(streams=counts(answer.ending for answer in answers))
