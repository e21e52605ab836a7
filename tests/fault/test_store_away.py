"""The database is away for a while, in each way in which that happens, while streams run and sessions come and go."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tests.fault.baseline import replicas_of
from tests.fault.figures import times
from tests.fault.long_answers import LONG_LLAMA, long_server_process
from tests.fault.outages import StartsAndStops, refused
from tests.fault.running_streams import running_stream
from tests.fault.trace import Trace
from tests.fault.traced_sessions import TracedSessions
from tests.integration.api.conftest import MODEL, wire_to
from tests.own_postgres import OwnPostgres, own_postgres
from tests.scale import bound, count
from tests.server_process import ServerProcess

pytestmark = pytest.mark.fault

AWAY_SECONDS = count(2, full=30)
OTHER_MODEL = "tiny-llama-positions"
_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""

Outage = Callable[[ServerProcess, OwnPostgres | None], "contextmanager[None]"]


@contextmanager
def locked_file(server: ServerProcess, _postgres: OwnPostgres | None) -> Iterator[None]:
    """Another program writes into the SQLite file, and does not finish."""
    command = [sys.executable, "-c", _LOCK, str(server.data_dir / "tidemill.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield
        process.send_signal(signal.SIGKILL)


@contextmanager
def frozen_server(_server: ServerProcess, postgres: OwnPostgres | None) -> Iterator[None]:
    """Connections stay open, and nobody answers."""
    assert postgres is not None
    postgres.freeze()
    try:
        yield
    finally:
        postgres.thaw()


@contextmanager
def killed_server(_server: ServerProcess, postgres: OwnPostgres | None) -> Iterator[None]:
    """All connections break, and none can be made."""
    assert postgres is not None
    postgres.kill()
    yield
    postgres.start()


@pytest.mark.parametrize(
    ("backend", "outages"),
    [
        pytest.param("sqlite", [locked_file], id="sqlite"),
        pytest.param("postgres", [killed_server, frozen_server][: count(1, full=2)], id="postgres"),
    ],
)
def test_streams_go_on_starts_are_refused_and_all_is_settled_after(
    backend: str, outages: list[Outage], tmp_path: Path, note: Callable[..., None]
) -> None:
    refusals, backs = [], []
    with (
        own_postgres() if backend == "postgres" else nullcontext() as postgres,
        long_server_process(tmp_path, *(("--database", postgres.url) if postgres else ())) as server,
        wire_to(server) as wire,
    ):
        trace = Trace()
        sessions = TracedSessions(wire, trace)
        name = sessions.start(LONG_LLAMA)
        sessions.stop(sessions.start(MODEL))  # its model is ready from here on
        replicas = replicas_of(server)
        worker = StartsAndStops(wire, MODEL, trace, random.Random(7))
        with running_stream(wire) as stream, worker.running():
            for outage in outages:
                worker.wait_for_answer(60)
                with outage(server, postgres):
                    began = time.monotonic()
                    refusals.append(refused(lambda: wire.start(model=OTHER_MODEL)))
                    time.sleep(max(0.0, AWAY_SECONDS - (time.monotonic() - began)))
                    stream.wait_for_more()
                backs.append(worker.wait_for_answer(bound(5, busy=60)))
                stream.wait_for_more()
                sessions.check_open(name)
        assert not [session for session in sessions.listed() if session.model == f"models/{OTHER_MODEL}"]
        sessions.stop(name)
        assert replicas_of(server) == replicas, "replicas were given up because the store was away"
    note(
        away=f"{AWAY_SECONDS} s, {', '.join(outage.__name__.replace('_', ' ') for outage in outages)}",
        refused_after=times(refusal.seconds for refusal in [*refusals, *worker.refusals]),
        back_after=times(backs),
        sessions=f"{len(worker.ended)} started and stopped meanwhile, none lost, none double, all billed by the trace",
    )
