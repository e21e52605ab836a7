"""The wall clock is set by two hours, forth and back, while sessions run and while nothing does, in both databases."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import select

from tests.databases import BACKENDS
from tests.fault.baseline import replicas_of
from tests.fault.long_answers import LONG_LLAMA, long_server_process
from tests.fault.running_streams import running_stream
from tests.fault.trace import ALLOWANCE_MS, Trace, moment
from tests.fault.traced_sessions import A_DAY, TracedSessions
from tests.fault.wall_clock import HOUR_SECONDS, WallClock
from tests.integration.api.conftest import MODEL, Wire, wire_to
from tests.own_postgres import own_postgres
from tests.scale import count
from tests.server_process import ServerProcess
from tidemill.v1 import account_pb2
from tidemill_services.store.database import Transaction
from tidemill_services.store.postgres import PostgresDatabase
from tidemill_services.store.tables import clock as clock_table

pytestmark = pytest.mark.fault

JUMPS_SECONDS = (2 * HOUR_SECONDS, -2 * HOUR_SECONDS) * count(1, full=25)
RESTARTS_SECONDS = (-4 * HOUR_SECONDS, 2 * HOUR_SECONDS, -2 * HOUR_SECONDS)


@dataclass
class Platform:
    """A server and its database, on a machine whose clock the test sets."""

    folder: Path
    clock: WallClock
    database: tuple[str, ...]
    restarts_seconds: tuple[int, ...]  # what the clock says at each of them

    def server(self) -> AbstractContextManager[ServerProcess]:
        """A life of the server."""
        return long_server_process(self.folder, *self.database, **self.clock.environment)


@pytest.fixture(params=BACKENDS)
def platform(request: pytest.FixtureRequest, tmp_path: Path, shared_folder: Path) -> Iterator[Platform]:
    clock = WallClock(shared_folder)
    postgres = own_postgres(**clock.environment) if request.param == "postgres" else nullcontext()
    with postgres as server:
        restarts_seconds = RESTARTS_SECONDS[: count(0 if server else 1, full=3)]
        yield Platform(tmp_path, clock, ("--database", server.url) if server else (), restarts_seconds)


def key_for_an_hour(wire: Wire) -> str:
    expire_time = Timestamp()
    expire_time.FromSeconds(round(time.time()) + HOUR_SECONDS)
    request = account_pb2.CreateApiKeyRequest(api_key=account_pb2.ApiKey(expire_time=expire_time))
    return wire.accounts.CreateApiKey(request, metadata=wire.metadata).secret


def test_sessions_are_billed_by_the_time_that_passes_and_a_restart_bills_nothing_for_the_gap(
    platform: Platform, note: Callable[..., None]
) -> None:
    trace = Trace()
    num_restarts = len(platform.restarts_seconds)
    with platform.server() as server, wire_to(server) as wire:
        sessions = TracedSessions(wire, trace)
        name = sessions.start(LONG_LLAMA, limits=A_DAY)
        newest_ms = set_the_clock_while_sessions_run(platform.clock, server, sessions, name)
        kill_or_stop(server, sessions, name, is_last=num_restarts == 0)
    for num_kills, seconds in enumerate(platform.restarts_seconds, 1):
        platform.clock.set_by(seconds)
        with moment() as restarted, platform.server() as server, wire_to(server) as wire:
            sessions = TracedSessions(wire, trace)
            trace.runs(name, sessions.ready(LONG_LLAMA, restarted))
            time.sleep(1.5)
            sessions.check_open(name, num_crashes=num_kills)
            before_ms, newest_ms = newest_ms, wire.start(model=MODEL).session.create_time.ToMilliseconds()
            assert newest_ms >= before_ms, "time went back behind the high-water mark"
            kill_or_stop(server, sessions, name, is_last=num_kills == num_restarts, num_crashes=num_kills)
    note(jumps=len(JUMPS_SECONDS), restarts=num_restarts, sessions=f"{len(trace.names)}, all billed by the trace")


def kill_or_stop(
    server: ServerProcess, sessions: TracedSessions, name: str, *, is_last: bool, num_crashes: int = 0
) -> None:
    """Kill the server in mid-session; in its last life, stop the session."""
    if is_last:
        sessions.stop(name, num_crashes=num_crashes)
        return
    with moment() as killed:
        server.kill()
    sessions.trace.stands(name, killed)


def set_the_clock_while_sessions_run(
    clock: WallClock, server: ServerProcess, sessions: TracedSessions, name: str
) -> int:
    """Nothing ends, is lost or costs anything by it. Returns the platform's time at the end, in milliseconds."""
    wire = sessions.wire
    forgotten = sessions.start(MODEL)  # nothing runs of it
    replicas = replicas_of(server)
    with wire_to(server, key_for_an_hour(wire)) as other_wire, running_stream(wire) as stream:
        others = TracedSessions(other_wire, sessions.trace)
        for seconds in JUMPS_SECONDS:
            clock.set_by(seconds)
            stream.wait_for_more()
            time.sleep(1.2)
            newest_ms = others.stop(others.start(LONG_LLAMA)).end_time.ToMilliseconds()  # by a key valid for an hour
            sessions.check_open(name)
            sessions.check_open(forgotten)
        assert not stream.is_over
    sessions.stop(forgotten)
    assert replicas_of(server) == replicas
    return newest_ms


async def test_processes_on_one_postgres_agree_on_the_time_also_one_that_comes_after_the_clock_was_set(
    shared_folder: Path,
) -> None:
    clock = WallClock(shared_folder)
    with own_postgres(**clock.environment) as postgres:
        async with AsyncExitStack() as stack:
            databases = [await opened(stack, postgres.url) for _ in range(2)]
            began = time.monotonic()
            began_ms = await now_ms(databases[0])
            told = time.monotonic()
            for seconds in JUMPS_SECONDS[:2]:
                await marked(databases[-1])
                clock.set_by(seconds)
                databases.append(await opened(stack, postgres.url))
                times_ms = []
                for database in databases * 3:
                    asked = time.monotonic()
                    times_ms.append(await now_ms(database))
                    earliest_ms = began_ms + (asked - told) * 1000 - ALLOWANCE_MS
                    assert earliest_ms <= times_ms[-1] <= began_ms + (time.monotonic() - began) * 1000 + ALLOWANCE_MS
                assert times_ms == sorted(times_ms)


async def opened(stack: AsyncExitStack, url: str) -> PostgresDatabase:
    """One more process, which is as busy as the quietest control process."""
    database = PostgresDatabase(url)
    await database.open()
    stack.push_async_callback(database.close)
    ticking = asyncio.create_task(tick(database), name="tick")
    stack.callback(ticking.cancel)
    return database


async def marked(database: PostgresDatabase) -> None:
    """Wait until the mark has moved on, so that all can see that somebody runs."""
    since_ms = await now_ms(database)
    async for _ in database.changes("none", poll_seconds=0.05):
        if await database.read(mark_ms) >= since_ms:
            return


def mark_ms(tx: Transaction) -> int:
    return tx.connection.execute(select(clock_table.c.high_water_ms)).scalar_one()


async def tick(database: PostgresDatabase) -> None:
    while True:
        await now_ms(database)
        await asyncio.sleep(0.3)


async def now_ms(database: PostgresDatabase) -> int:
    return await database.write(lambda tx: tx.now_ms)
