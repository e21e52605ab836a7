"""A backup of either database restores into either, whole or not at all, and what comes out of it can be served."""

import gzip
import json
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, text, update
from sqlalchemy.exc import DBAPIError

from tests.backups import HEAD, LIVING, Places, backed_up, content, content_at, filled, places, restored
from tests.databases import BACKENDS
from tidemill_services.domain.errors import CannotStartError
from tidemill_services.store import accounts, migrations
from tidemill_services.store.backend import Backend
from tidemill_services.store.backups.dump import LEFT_OUT, back_up, backed_up_tables
from tidemill_services.store.backups.format import BackupWriter, Header
from tidemill_services.store.backups.restore import restore
from tidemill_services.store.clock import Clock
from tidemill_services.store.opening import open_backend, open_database
from tidemill_services.store.sqlite import SqliteDatabase
from tidemill_services.store.tables import audit_events, clock, metadata

__all__ = ["places"]


@pytest.fixture
def backend(empty_database_url: str) -> Iterator[Backend]:
    """An empty database of each kind, taken."""
    backend = open_backend(empty_database_url)
    backend.take()
    yield backend
    backend.dispose()


@pytest.fixture
def file_backend(tmp_path: Path) -> Iterator[Backend]:
    """For what does not hang on the kind of database."""
    backend = open_backend(f"sqlite:///{tmp_path / 'source.db'}")
    backend.take()
    yield backend
    backend.dispose()


def test_every_table_is_backed_up_or_named_with_the_reason_why_not():
    names = {table.name for table in backed_up_tables(HEAD)}
    assert names | LEFT_OUT.keys() == metadata.tables.keys()
    assert not names & LEFT_OUT.keys()


def test_every_row_comes_back_in_the_other_database_and_back_again(
    backend: Backend, empty_database_url: str, places: Places, tmp_path: Path
):
    filled(backend)
    first = back_up(backend, tmp_path / "first")
    with backend.snapshot() as connection:
        before = content(connection)
    assert all(len(rows) == 3 for name, rows in before.items() if name not in LIVING)
    there = places.other(empty_database_url, "there")
    restored(there, tmp_path / "first")
    assert content_at(there) == before
    second = backed_up(there, tmp_path / "second")
    back = places.other(there, "back")
    restored(back, tmp_path / "second")
    assert content_at(back) == before
    third = backed_up(back, tmp_path / "third")
    assert first.totals.content_sha256 == second.totals.content_sha256 == third.totals.content_sha256
    assert first.totals.rows == third.totals.rows


@pytest.mark.parametrize("revision", [revision.name for revision in migrations.history()[:-1]])
def test_a_backup_of_an_older_schema_is_restored_as_it_was_and_then_migrated(
    revision: str, backend: Backend, empty_database_url: str, places: Places, tmp_path: Path
):
    filled(backend, revision, num_rows=1)  # for migrations may number what they make in the order of a language
    assert back_up(backend, tmp_path / "old").header.revision == revision
    with backend.whole_change() as connection:
        migrations.upgrade(connection)
        expected = content(connection)
    there = places.other(empty_database_url, "there")
    restored(there, tmp_path / "old")
    assert content_at(there) == expected


def test_no_column_of_postgres_counts_by_itself(postgres_server, places: Places):
    """A restored table would count from 1 again."""
    backend = open_backend(places.url("postgres", ""))
    with backend.whole_change() as connection:
        migrations.upgrade(connection)
        query = text(
            "SELECT table_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND (column_default LIKE 'nextval%' OR is_identity = 'YES')"
        )
        counting = set(connection.execute(query).scalars())
    backend.dispose()
    assert counting <= {"clock", "leader"}  # which have one row, number 1


def test_what_was_append_only_still_is(backend: Backend, empty_database_url: str, places: Places, tmp_path: Path):
    filled(backend)
    back_up(backend, tmp_path / "file")
    there = places.other(empty_database_url, "there")
    restored(there, tmp_path / "file")
    target = open_backend(there)
    for statement in (update(audit_events).values(actor="nobody"), delete(audit_events)):
        with pytest.raises(DBAPIError, match="append-only"), target.write_engine.begin() as connection:
            connection.execute(statement)
    target.dispose()


async def test_time_goes_on_from_the_backup_when_the_new_machines_clock_is_behind(tmp_path: Path):
    later_ms = 4_000_000_000_000
    first = SqliteDatabase(tmp_path / "first.db", clock=Clock(wall_ns=lambda: later_ms * 10**6, monotonic_ns=lambda: 0))
    await first.open()
    await first.write(accounts.create_account, "a", "")
    await first.close()
    backed_up(f"sqlite:///{tmp_path / 'first.db'}", tmp_path / "file")
    restored(f"sqlite:///{tmp_path / 'second.db'}", tmp_path / "file")
    second = SqliteDatabase(tmp_path / "second.db")
    await second.open()
    assert await second.write(lambda tx: tx.now_ms) >= later_ms
    await second.close()


async def test_on_postgres_too_time_goes_on_from_the_backup(places: Places, tmp_path: Path):
    later_ms = 4_000_000_000_000
    url = places.url("postgres", "")
    backend = open_backend(url)
    with backend.whole_change() as connection:
        migrations.upgrade(connection)
        connection.execute(update(clock).values(high_water_ms=later_ms))
    back_up(backend, tmp_path / "file")
    backend.dispose()
    target = places.url("postgres", "")
    restored(target, tmp_path / "file")
    database = open_database(target)
    await database.open()
    assert await database.write(lambda tx: tx.now_ms) >= later_ms
    await database.close()


def test_a_database_with_rows_is_refused_and_left_as_it_is(backend: Backend, tmp_path: Path):
    filled(backend)
    back_up(backend, tmp_path / "file")
    with backend.snapshot() as connection:
        before = content(connection)
    with pytest.raises(CannotStartError, match=r"not empty \(accounts, .*have rows"):
        restore(backend, tmp_path / "file")
    with backend.snapshot() as connection:
        assert content(connection) == before


def test_a_schema_without_rows_is_empty_whatever_its_revision(file_backend: Backend, places: Places, tmp_path: Path):
    filled(file_backend)
    expected = back_up(file_backend, tmp_path / "file")
    for kind, revision in zip(BACKENDS, ("0001", HEAD), strict=True):
        url = places.url(kind, "empty")
        target = open_backend(url)
        target.take()
        with target.whole_change() as connection:
            migrations.upgrade(connection, revision)
        target.dispose()
        assert restored(url, tmp_path / "file").backup == expected


def test_a_file_that_a_server_has_is_refused(tmp_path: Path):
    server = open_backend(f"sqlite:///{tmp_path / 'served.db'}")
    server.prepare()
    back_up(server, tmp_path / "file")
    with pytest.raises(CannotStartError, match="in use by process"):
        restored(f"sqlite:///{tmp_path / 'served.db'}", tmp_path / "file")
    server.dispose()


def test_a_row_that_has_no_place_leaves_nothing_behind(backend: Backend, tmp_path: Path):
    columns = {table.name: tuple(table.columns.keys()) for table in backed_up_tables(HEAD)}
    with (tmp_path / "file").open("wb") as file:
        writer = BackupWriter(file, Header(HEAD, 1, columns))
        account = {"account_id": "a", "display_name": "", "create_ms": 1, "use_cache": True, "pays_per_token": False}
        writer.write_row("accounts", [account.get(column) for column in columns["accounts"]])
        writer.write_row("requests", ["nobody", "r", "i", b"h", b"r", 1])
        writer.end()
    with pytest.raises(CannotStartError, match="A row of requests has no place"):
        restore(backend, tmp_path / "file")
    with backend.snapshot() as connection:
        assert migrations.current_revision(connection) is None


def test_the_file_is_its_owners_alone_and_none_is_overwritten_unasked(file_backend: Backend, tmp_path: Path):
    backend = file_backend
    filled(backend)
    file = tmp_path / "folder" / "file"
    file.parent.mkdir()
    back_up(backend, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = file.read_bytes()
    with backend.whole_change() as connection:
        connection.execute(insert(accounts.accounts).values(account_id="new", display_name="", create_ms=1))
    with pytest.raises(CannotStartError, match="is there already"):
        back_up(backend, file)
    assert file.read_bytes() == first
    back_up(backend, file, overwrite=True)
    assert file.read_bytes() != first
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_a_backup_needs_tables_and_a_place(file_backend: Backend, tmp_path: Path):
    backend = file_backend
    with pytest.raises(CannotStartError, match="nothing to back up"):
        back_up(backend, tmp_path / "file")
    filled(backend)
    with pytest.raises(CannotStartError, match="cannot be written: No such file or directory"):
        back_up(backend, tmp_path / "nowhere" / "file")
    with pytest.raises(CannotStartError, match="cannot be written: Is a directory"):
        back_up(backend, tmp_path, overwrite=True)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with pytest.raises(CannotStartError, match="There is no database"):
        backed_up(f"sqlite:///{tmp_path / 'none.db'}", tmp_path / "file")


def test_memory_does_not_grow_with_the_rows(backend: Backend, empty_database_url: str, places: Places, tmp_path: Path):
    num_rows, num_bytes = 400, 50_000
    table = metadata.tables["requests"]
    row = {"account_id": "a", "rpc": "r", "body_hash": b"h", "response": b"0123456789" * (num_bytes // 10)}
    with backend.whole_change() as connection:
        migrations.upgrade(connection)
        connection.execute(insert(accounts.accounts).values(account_id="a", display_name="", create_ms=1))
        connection.execute(
            insert(table), [{**row, "request_id": f"{number:06}", "create_ms": 1} for number in range(num_rows)]
        )
    tracemalloc.start()
    try:
        back_up(backend, tmp_path / "file")
        restored(places.other(empty_database_url, "there"), tmp_path / "file")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < num_rows * num_bytes / 2


def test_a_backup_beside_a_writer_is_one_moment(backend: Backend, tmp_path: Path):
    """Whoever writes waits for no backup, and of what is written together all is in it or nothing."""
    filled(backend)
    with backend.snapshot() as connection:
        before = content(connection)
        with backend.write_engine.begin() as writing:
            writing.execute(insert(accounts.accounts).values(account_id="late", display_name="", create_ms=1))
        assert content(connection) == before
    back_up(backend, tmp_path / "file")
    lines = gzip.decompress((tmp_path / "file").read_bytes()).decode().splitlines()
    assert ["accounts", "late"] in [json.loads(line)[:2] for line in lines[1:-1]]
