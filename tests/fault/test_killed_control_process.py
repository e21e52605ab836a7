"""A control process that is killed again and again: no orphan replica, each session open or closed exactly once."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from tests.fault.callers import Callers
from tests.fault.figures import counts, times
from tests.fault.long_answers import long_server_process
from tests.own_postgres import own_postgres
from tests.processes import children_of, is_alive
from tests.scale import bound, count
from tidemill.v1 import session_pb2

pytestmark = pytest.mark.fault

ENDED = session_pb2.Session.STATE_ENDED


@dataclass
class Told:
    """What the server acknowledged, over all its lives."""

    open_name: str = ""  # started, and no stop of it was sent since
    ended: dict[str, int] = field(default_factory=dict)  # the final cost of each stopped session
    num_calls: int = 0


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """The arguments of `serve` for each database, which outlives its process."""
    with own_postgres() if request.param == "postgres" else nullcontext() as postgres:
        yield ("--database", postgres.url) if postgres else ()


@pytest.mark.rule("S24")
async def test_a_killed_control_process_leaves_no_orphan_and_its_sessions_go_on(
    database: tuple[str, ...], tmp_path: Path, note: Callable[..., None]
) -> None:
    """The books of each life are proven when it is over: that is part of `long_server_process`."""
    chance = random.Random(4)
    told = Told()
    endings: list[str] = []
    orphans_gone: list[float] = []
    num_kills = count(1 if database else 2, full=100)
    for life in range(num_kills + 1):
        with long_server_process(tmp_path, *database) as server:
            async with Callers(server.grpc, server.api_key) as callers:
                await _check_sessions(callers, told)
                if life == num_kills:
                    assert (await _generated(callers)).ending == "LENGTH"
                    break
                streaming = asyncio.create_task(_stream(callers))
                billing = asyncio.create_task(_start_and_stop(callers, told, chance))
                await asyncio.sleep(chance.uniform(0.5, 3.0))
                replicas = children_of(server.process.pid)
                await asyncio.to_thread(server.kill)
                killed = time.monotonic()
                await billing
                endings += await streaming
                while any(is_alive(replica) for replica in replicas):
                    assert time.monotonic() - killed < bound(2, busy=60), "a replica outlives its control process"
                    await asyncio.sleep(0.02)
                orphans_gone.append(time.monotonic() - killed)
    note(
        kills=num_kills,
        sessions=f"{len(told.ended) + 1} in {told.num_calls} acknowledged calls, none lost, none double",
        streams=counts(endings),
        orphans_gone_after=times(orphans_gone),
    )


async def _start_and_stop(callers: Callers, told: Told, chance: random.Random) -> None:
    """Start and stop the session until the server is gone."""
    try:
        while True:
            name = (await callers.start()).name
            told.open_name, told.num_calls = name, told.num_calls + 1
            await asyncio.sleep(chance.uniform(0, 0.4))
            told.open_name = ""  # from now on it may be stopped, told or not
            stopped = await callers.stop()
            assert stopped.bill.final
            assert told.ended.setdefault(stopped.name, stopped.bill.cost_microcredits) == stopped.bill.cost_microcredits
            told.num_calls += 1
    except grpc.RpcError as gone:
        if gone.code() is not grpc.StatusCode.UNAVAILABLE:
            raise


async def _check_sessions(callers: Callers, told: Told) -> None:
    """What was acknowledged holds, each session is there once, and at most one is open."""
    sessions = [session async for session in _sessions(callers)]
    by_name = {session.name: session for session in sessions}
    assert len(by_name) == len(sessions)
    for name, cost in told.ended.items():
        assert by_name[name].state in (ENDED, session_pb2.Session.STATE_STOPPING)
        assert (by_name[name].bill.final, by_name[name].bill.cost_microcredits) == (True, cost)
    is_open = [name for name, session in by_name.items() if not session.bill.final]
    assert len(is_open) <= 1
    if told.open_name:
        assert is_open == [told.open_name]
    for session in sessions:
        wall_ms = (session.end_time.ToMilliseconds() or time.time() * 1000) - session.create_time.ToMilliseconds()
        assert session.bill.billed_milliseconds <= wall_ms + 1_000


async def _sessions(callers: Callers):
    page_token = ""
    while True:
        request = session_pb2.ListSessionsRequest(page_size=100, page_token=page_token)
        page = await callers.sessions.ListSessions(request, metadata=callers.metadata, timeout=60)
        for session in page.sessions:
            yield session
        page_token = page.next_page_token
        if not page_token:
            return


async def _generated(callers: Callers):
    await callers.start()
    return await callers.generate(5)


async def _stream(callers: Callers) -> list[str]:
    """Streams that run while the server is killed; how they end."""
    endings = []
    while not endings or endings[-1] in ("FAILED_PRECONDITION NO_SESSION", "SESSION_STOPPED"):
        answer = await callers.generate(50_000)
        endings.append(answer.ending)
        await asyncio.sleep(0.02)
    return endings
