"""The wall clock is set by two hours, forth and back, while sessions run and while nothing does, in both databases."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.databases import BACKENDS
from tests.fault.baseline import replicas_of
from tests.fault.long_answers import LONG_LLAMA, long_server_process
from tests.fault.running_streams import running_stream
from tests.fault.trace import Trace, moment
from tests.fault.traced_sessions import A_DAY, TracedSessions
from tests.fault.wall_clock import HOUR_SECONDS, WallClock
from tests.integration.api.conftest import MODEL, Wire, wire_to
from tests.own_postgres import own_postgres
from tests.scale import count
from tests.server_process import ServerProcess
from tidemill.v1 import account_pb2

pytestmark = pytest.mark.fault

JUMPS_SECONDS = (2 * HOUR_SECONDS, -2 * HOUR_SECONDS) * count(1, full=25)
RESTARTS_SECONDS = (-4 * HOUR_SECONDS, 2 * HOUR_SECONDS, -2 * HOUR_SECONDS)[: count(1, full=3)]


@dataclass
class Platform:
    """A server and its database, on a machine whose clock the test sets."""

    folder: Path
    clock: WallClock
    database: tuple[str, ...]

    def server(self) -> AbstractContextManager[ServerProcess]:
        """A life of the server."""
        return long_server_process(self.folder, *self.database, **self.clock.environment)


@pytest.fixture(params=BACKENDS)
def platform(request: pytest.FixtureRequest, tmp_path: Path, shared_folder: Path) -> Iterator[Platform]:
    clock = WallClock(shared_folder)
    postgres = own_postgres(**clock.environment) if request.param == "postgres" else nullcontext()
    with postgres as server:
        yield Platform(tmp_path, clock, ("--database", server.url) if server else ())


def key_for_an_hour(wire: Wire) -> str:
    expire_time = Timestamp()
    expire_time.FromSeconds(round(time.time()) + HOUR_SECONDS)
    request = account_pb2.CreateApiKeyRequest(api_key=account_pb2.ApiKey(expire_time=expire_time))
    return wire.accounts.CreateApiKey(request, metadata=wire.metadata).secret


def test_sessions_are_billed_by_the_time_that_passes_and_a_restart_bills_nothing_for_the_gap(
    platform: Platform, note: Callable[..., None]
) -> None:
    trace = Trace()
    with platform.server() as server, wire_to(server) as wire:
        sessions = TracedSessions(wire, trace)
        name = sessions.start(LONG_LLAMA, limits=A_DAY)
        newest_ms = set_the_clock_while_sessions_run(platform.clock, server, sessions, name)
        kill(server, trace, name)
    for num_kills, seconds in enumerate(RESTARTS_SECONDS, 1):
        platform.clock.set_by(seconds)
        with moment() as restarted, platform.server() as server, wire_to(server) as wire:
            sessions = TracedSessions(wire, trace)
            trace.runs(name, sessions.ready(LONG_LLAMA, restarted))
            time.sleep(1.5)
            sessions.check_open(name, num_crashes=num_kills)
            started, newest_ms = newest_ms, wire.start(model=MODEL).session.create_time.ToMilliseconds()
            assert newest_ms >= started, "time went back behind the high-water mark"
            if num_kills == len(RESTARTS_SECONDS):
                session = sessions.stop(name, num_crashes=num_kills)
            else:
                kill(server, trace, name)
    off_ms = trace.check(session, num_crashes=num_kills)
    note(restarts=num_kills, sessions=len(trace.names), bill_of_the_first_is_off_by=f"{off_ms:.0f} ms")


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


def kill(server: ServerProcess, trace: Trace, name: str) -> None:
    with moment() as killed:
        server.kill()
    trace.stands(name, killed)
