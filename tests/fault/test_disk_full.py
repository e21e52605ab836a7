"""The disk below the database is full for a while, again and again, while streams run and sessions come and go."""

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault.baseline import replicas_of
from tests.fault.figures import counts, times
from tests.fault.full_disk import FullDisk
from tests.fault.long_answers import LONG_LLAMA, long_server_process
from tests.fault.outages import StartsAndStops, refused
from tests.fault.running_streams import running_stream
from tests.fault.trace import Trace, moment
from tests.fault.traced_sessions import TracedSessions
from tests.integration.api.conftest import MODEL, wire_to
from tests.scale import bound, count
from tests.server_process import START_SECONDS

pytestmark = pytest.mark.fault

OTHER_MODEL = "tiny-llama-positions"
FULL_SECONDS = count(1, full=10)


def test_a_full_disk_is_told_and_work_goes_on_when_there_is_room_and_a_restart_says_it_plainly(
    tmp_path: Path, shared_folder: Path, note: Callable[..., None]
) -> None:
    chance = random.Random(11)
    disk = FullDisk(tmp_path / "data", shared_folder)
    trace = Trace()
    refusals, backs = [], []
    with long_server_process(tmp_path, **disk.environment) as server, wire_to(server) as wire:
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
        disk.fill()
        with moment() as killed:
            server.kill()
        trace.stands(name, killed)
    check_start_is_refused(server.data_dir, disk)
    disk.free()
    with moment() as restarted, long_server_process(tmp_path, **disk.environment) as server, wire_to(server) as wire:
        sessions = TracedSessions(wire, trace)
        trace.runs(name, sessions.ready(LONG_LLAMA, restarted))
        sessions.stop(name, num_crashes=1)
    check_integrity(server.data_dir / "tidemill.db")
    sentences = [refusal.sentence for refusal in [*refusals, *worker.refusals]]
    assert all("disk is full" in sentence for sentence in sentences), counts(sentences)
    note(
        filled=f"{len(backs)} times for {FULL_SECONDS} s and more",
        refused_after=times(refusal.seconds for refusal in [*refusals, *worker.refusals]),
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
