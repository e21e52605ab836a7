"""The disk below the database is full for a while, again and again, while streams run and sessions come and go."""

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.databases import BACKENDS
from tests.fault.baseline import replicas_of
from tests.fault.figures import counts, times
from tests.fault.full_disk import FullDisk
from tests.fault.long_answers import LONG_LLAMA, long_server_process
from tests.fault.outages import StartsAndStops, refused
from tests.fault.running_streams import running_stream
from tests.fault.trace import Trace
from tests.fault.traced_sessions import TracedSessions
from tests.integration.api.conftest import MODEL, wire_to
from tests.own_postgres import OwnPostgres, own_postgres
from tests.scale import bound, count
from tests.server_process import START_SECONDS, ServerProcess

pytestmark = pytest.mark.fault

OTHER_MODEL = "tiny-llama-positions"
FULL_SECONDS = count(1, full=10)


@dataclass
class Platform:
    """A server, and the disk that its database lies on."""

    folder: Path
    disk: FullDisk
    postgres: OwnPostgres | None = None

    def server(self) -> AbstractContextManager[ServerProcess]:
        """A life of the server."""
        if self.postgres is not None:
            return long_server_process(self.folder, "--database", self.postgres.url)
        return long_server_process(self.folder, **self.disk.environment)

    def check_integrity(self) -> None:
        """What is stored is whole."""
        if self.postgres is None:
            check_integrity(self.folder / "data" / "tidemill.db")


@pytest.fixture(params=BACKENDS[: count(1, full=2)])
def platform(request: pytest.FixtureRequest, tmp_path: Path, shared_folder: Path) -> Iterator[Platform]:
    if request.param == "sqlite":
        yield Platform(tmp_path, FullDisk(tmp_path / "data", shared_folder))
        return
    with own_postgres() as postgres:
        disk = FullDisk(postgres.folder / "data", shared_folder)
        postgres.kill()
        postgres.environment |= disk.environment
        postgres.start()
        yield Platform(tmp_path, disk, postgres)


def test_a_full_disk_is_told_and_all_goes_on_when_there_is_room(platform: Platform, note: Callable[..., None]) -> None:
    chance, trace, disk = random.Random(11), Trace(), platform.disk
    refusals, backs = [], []
    with platform.server() as server, wire_to(server) as wire:
        sessions = TracedSessions(wire, trace)
        name = sessions.start(LONG_LLAMA)
        sessions.stop(sessions.start(MODEL))  # its model is ready from here on
        replicas = replicas_of(server)
        worker = StartsAndStops(wire, MODEL, trace, chance)
        with running_stream(wire) as stream, worker.running():
            for _ in range(count(1, full=20)):
                worker.wait_for_answer(60)
                time.sleep(chance.uniform(0, 0.3))
                disk.fill()
                worker.wait_for_refusal()
                if platform.postgres is None:  # whose pages may have room for one more
                    refusals.append(refused(lambda: wire.start(model=OTHER_MODEL)))
                    refusals.append(refused(lambda: wire.stop(name=name, model="")))
                time.sleep(FULL_SECONDS)
                stream.wait_for_more()
                sessions.check_open(name)  # a call that reads is answered
                disk.free()
                backs.append(worker.wait_for_answer(bound(5, busy=60)))
            stream.wait_for_more()
        assert not [session for session in sessions.listed() if session.model == f"models/{OTHER_MODEL}"]
        assert replicas_of(server) == replicas
        sessions.stop(name)
    if platform.postgres is None:
        disk.fill()
        check_start_is_refused(server.data_dir, disk)
    platform.check_integrity()
    refusals += worker.refusals
    sentences = [refusal.sentence for refusal in refusals]
    assert all("disk is full" in sentence for sentence in sentences), counts(sentences)
    note(
        filled=f"{len(backs)} times for {FULL_SECONDS} s and more",
        refused_after=times(refusal.seconds for refusal in refusals),
        back_after=times(backs),
        sessions=f"{len(worker.ended)} started and stopped meanwhile, none lost, none double, all billed by the trace",
    )


def check_start_is_refused(data_dir: Path, disk: FullDisk) -> None:
    """In one plain sentence, which goes elsewhere than to the full disk."""
    command = [sys.executable, "-m", "tidemill_services", "serve", "--data-dir", str(data_dir)]
    command += ["--port", "0", "--http-port", "0", "--admin-port", "0"]
    environment = {**os.environ, "TIDEMILL_CONFIG": str(data_dir / "config.toml"), **disk.environment}
    ended = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=START_SECONDS)
    assert ended.returncode == 1, ended.stderr
    last_line = ended.stderr.splitlines()[-1]
    assert last_line.startswith("tidemill serve: "), ended.stderr
    assert "disk is full" in last_line, ended.stderr


def check_integrity(file: Path) -> None:
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert not connection.execute("PRAGMA foreign_key_check").fetchall()
    connection.close()
