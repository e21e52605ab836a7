"""`tidemill admin backup` beside a real server in use, and a server on what `restore` made of it elsewhere."""

import secrets
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import pytest
from sqlalchemy import insert

from tests.backups import Places, backed_up, places, restored
from tests.databases import postgres_server
from tests.integration.api.conftest import Wire, wait_until, wire_to
from tests.server_process import server_process
from tidemill.v1 import account_pb2, session_pb2
from tidemill_services.store import migrations
from tidemill_services.store.opening import open_backend
from tidemill_services.store.tables import accounts, requests

__all__ = ["places", "postgres_server"]

COMMAND_SECONDS = 100
ENDED = session_pb2.Session.STATE_ENDED
FILE_SIZE_LIMIT = 150_000  # room for what SQLite keeps beside its file, not for the rows


def admin(
    *arguments: object, data_dir: Path, expect: int = 0, limit: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as an operator does; `limit` is of the bytes in a file, as if the disk were full then."""
    command = [sys.executable, "-m", "tidemill", "admin", *map(str, arguments), "--data-dir", str(data_dir)]
    if limit is not None:  # by a shell: Python code between fork and exec would meet the threads of gRPC
        command = ["sh", "-c", f'ulimit -f {limit // 512}; exec "$@"', "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def sessions_of(wire: Wire) -> dict[str, session_pb2.Session]:
    page = wire.sessions.ListSessions(session_pb2.ListSessionsRequest(page_size=1_000), metadata=wire.metadata)
    assert not page.next_page_token
    return {session.name: session for session in page.sessions}


def events_of(wire: Wire) -> dict[int, account_pb2.AuditEvent]:
    request = account_pb2.ListAuditEventsRequest(page_size=1_000)
    events = wire.accounts.ListAuditEvents(request, metadata=wire.metadata).audit_events
    return {event.sequence_number: event for event in events}


class Customer:
    """Starts and stops sessions all the time, and keeps what it was told."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.stopped: dict[str, session_pb2.Session] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            self._wire.start(labels={"run": str(len(self.stopped))})
            self._wire.accounts.CreateApiKey(account_pb2.CreateApiKeyRequest(), metadata=self._wire.metadata)
            stopped = self._wire.stop().session
            self.stopped[stopped.name] = stopped


def test_a_backup_beside_a_server_in_use_is_served_elsewhere_with_all_that_was_acknowledged(
    tmp_path: Path, places: Places
) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "backup"
    with server_process(old, "--replica-device", "fake") as server, wire_to(server) as wire:
        with Customer(wire) as customer:
            wait_until(lambda: len(customer.stopped) >= 3, "the customer's first sessions", seconds=60)
            acknowledged, events_before = dict(customer.stopped), events_of(wire)
            said = admin("backup", file, data_dir=old).stdout
            num_before = len(customer.stopped)
            wait_until(lambda: len(customer.stopped) > num_before, "sessions after the backup", seconds=60)
        open_at_the_end = wire.start().session.name
        file.unlink()
        backed_up(f"sqlite:///{old / 'tidemill.db'}", file)
        sessions_before, events_at_the_end = sessions_of(wire), events_of(wire)
        old_key = server.api_key
    assert str(old / "secret") in said
    assert acknowledged.keys() <= sessions_before.keys()
    assert events_before.keys() < events_at_the_end.keys()

    url = places.url("postgres", "")
    new.mkdir()
    shutil.copy(old / "secret", new / "secret")
    told = admin("restore", file, "--database", url, data_dir=new).stdout
    assert "Sessions that were open, ended as of then: 1." in told
    assert "secret" not in told
    with server_process(new, "--replica-device", "fake", "--database", url) as server, wire_to(server, old_key) as wire:
        found = sessions_of(wire)
        assert found.keys() == sessions_before.keys()
        ended = found.pop(open_at_the_end)
        assert (ended.state, ended.end_reason) == (ENDED, session_pb2.Session.END_REASON_ADMIN)
        assert {name: settled(session) for name, session in found.items()} == {
            name: settled(session) for name, session in sessions_before.items() if name in found
        }
        events = events_of(wire)
        assert {number: events[number] for number in events_at_the_end} == events_at_the_end
        wire.start()
        assert list(wire.generate())


def settled(session: session_pb2.Session) -> dict[str, object]:
    """What of a stopped session never changes; its state does, once its last stream has ended."""
    return {
        "bill": session.bill.SerializeToString(deterministic=True),
        "labels": dict(session.labels),
        "reason": session.end_reason,
        "end": session.end_time.ToJsonString(),
    }


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A data directory with half a megabyte of rows that cannot be packed."""
    folder = tmp_path / "filled"
    backend = open_backend(f"sqlite:///{folder / 'tidemill.db'}")
    backend.take()
    with backend.whole_change() as connection:
        migrations.upgrade(connection)
        connection.execute(insert(accounts).values(account_id="a", display_name="", create_ms=1))
        row = {"account_id": "a", "rpc": "r", "body_hash": b"h", "create_ms": 1}
        blobs = [{"request_id": str(number), "response": secrets.token_bytes(50_000), **row} for number in range(10)]
        connection.execute(insert(requests), blobs)
    backend.dispose()
    return folder


def test_a_disk_that_is_full_is_told_in_a_sentence_and_nothing_is_left(filled: Path, tmp_path: Path) -> None:
    folder, new = tmp_path / "backups", tmp_path / "new"
    folder.mkdir()
    refused = admin("backup", folder / "file", data_dir=filled, expect=1, limit=FILE_SIZE_LIMIT)
    assert f"{folder / 'file'} cannot be written: File too large." in refused.stderr
    assert list(folder.iterdir()) == []
    backed_up(f"sqlite:///{filled / 'tidemill.db'}", folder / "file")
    refused = admin("restore", folder / "file", data_dir=new, expect=1, limit=FILE_SIZE_LIMIT)
    assert f"The database {new / 'tidemill.db'} cannot be opened. " in refused.stderr
    assert restored(f"sqlite:///{new / 'tidemill.db'}", folder / "file").backup.totals.num_rows == 11
