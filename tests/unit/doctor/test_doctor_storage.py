"""Real folders, files, locks and databases."""

import os
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tidemill_services.doctor.data_directory import check_data_directory
from tidemill_services.doctor.database import check_postgres, examine_file, lock_holder
from tidemill_services.doctor.disk import check_filesystem, filesystem_of, judge_free_space
from tidemill_services.doctor.finding import Level
from tidemill_services.doctor.schema import check_schema, known_revisions
from tidemill_services.store import migrations
from tidemill_services.store.file_lock import FileLock

NEWEST = migrations.newest_revision()
MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / {home} rw,relatime shared:5 - nfs4 server:/home rw
31 30 0:41 / {home}/my\\040disk rw - tmpfs tmpfs rw
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory as a server leaves it."""
    made = tmp_path / "data"
    made.mkdir(mode=0o700)
    for name, content in (("secret", secrets.token_bytes(32)), ("api_key", b"key\n")):
        (made / name).write_bytes(content)
        (made / name).chmod(0o600)
    with closing(sqlite3.connect(made / "tidemill.db")) as opened:
        opened.execute("PRAGMA journal_mode = WAL")
        opened.execute("CREATE TABLE clock (high_water_ms INTEGER NOT NULL)")
        opened.execute("INSERT INTO clock VALUES (1234567)")
        opened.execute("CREATE TABLE alembic_version (version_num TEXT)")
        opened.execute("INSERT INTO alembic_version VALUES (?)", (NEWEST,))
        opened.execute("CREATE TABLE padding (text TEXT)")
        opened.executemany("INSERT INTO padding VALUES (?)", [("x" * 4000,)] * 40)
        opened.commit()
    (made / "tidemill.db").chmod(0o600)
    return made


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    return {path.name: (path.stat().st_mode, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_folder_as_a_server_leaves_it_is_right(folder: Path) -> None:
    assert [found.level for found in check_data_directory(folder)] == [Level.OK]


@pytest.mark.parametrize(
    ("name", "mode", "level"),
    [
        ("", 0o755, Level.WARNING),
        ("", 0o770, Level.WRONG),
        ("", 0o500, Level.WRONG),
        ("secret", 0o640, Level.WRONG),
        ("api_key", 0o604, Level.WRONG),
        ("tidemill.db", 0o644, Level.WARNING),
        ("tidemill.db", 0o660, Level.WRONG),
    ],
)
def test_what_others_can_reach_is_named_with_the_command_that_closes_it(
    folder: Path, name: str, mode: int, level: Level
) -> None:
    place = folder / name
    place.chmod(mode)
    (found,) = check_data_directory(folder)
    assert found.level is level
    assert f"chmod {'600' if name else '700'} {place}" in found.sentence


def test_a_folder_of_another_user_is_wrong(folder: Path) -> None:
    owner = os.geteuid()
    (found, *_) = check_data_directory(folder, user_id=owner + 1)
    assert found.level is Level.WRONG
    assert f"belongs to user {owner}" in found.sentence


def test_a_database_without_its_secret_is_wrong(folder: Path) -> None:
    (folder / "secret").write_bytes(b"short")
    assert "has 5 bytes, not 32" in check_data_directory(folder)[0].sentence
    (folder / "secret").unlink()
    (found,) = check_data_directory(folder)
    assert found.level is Level.WRONG
    assert "restore it" in found.sentence


def test_a_folder_that_is_not_there_is_right_where_it_can_be_made(tmp_path: Path) -> None:
    assert check_data_directory(tmp_path / "a" / "b")[0].level is Level.OK
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    assert check_data_directory(tmp_path / "file")[0].level is Level.WRONG
    assert check_data_directory(tmp_path / "file" / "data")[0].level is Level.WRONG


def test_a_whole_database_is_read_without_changing_anything(folder: Path) -> None:
    before = listing(folder)
    facts = examine_file(folder / "tidemill.db")
    assert [found.level for found in facts.findings] == [Level.OK, Level.OK]
    assert facts.high_water_ms == 1_234_567
    assert listing(folder) == before


def test_a_database_that_is_in_use_can_be_checked(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "tidemill.db")) as server:
        server.execute("UPDATE clock SET high_water_ms = 7654321")
        server.commit()
        facts = examine_file(folder / "tidemill.db")
    assert [found.level for found in facts.findings] == [Level.OK, Level.OK]
    assert facts.high_water_ms == 7_654_321


def test_a_damaged_database_is_wrong(folder: Path) -> None:
    database = folder / "tidemill.db"
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 4))
    (found,) = examine_file(database).findings
    assert found.level is Level.WRONG
    assert "damaged" in found.sentence


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b""])
def test_a_file_that_is_no_database_of_ours_is_wrong(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tidemill.db").write_bytes(content)
    (found,) = examine_file(tmp_path / "tidemill.db").findings
    assert found.level is Level.WRONG


def test_a_log_without_its_index_is_left_alone(folder: Path) -> None:
    (folder / "tidemill.db-wal").write_bytes(b"unfinished")
    (found,) = examine_file(folder / "tidemill.db").findings
    assert found.level is Level.WARNING
    assert not (folder / "tidemill.db-shm").exists()


@pytest.mark.parametrize(
    ("revision", "level", "told"),
    [
        (NEWEST, Level.OK, "the one of this version"),
        ("0001", Level.WARNING, f"the next start migrates it to {NEWEST}"),
        ("9999", Level.WRONG, "a newer Tidemill wrote it"),
        (None, Level.OK, "no tables yet"),
    ],
)
def test_the_schema_is_right_older_or_newer(folder: Path, revision: str | None, level: Level, told: str) -> None:
    with closing(sqlite3.connect(folder / "tidemill.db")) as opened:
        opened.execute("DELETE FROM alembic_version")
        opened.executemany("INSERT INTO alembic_version VALUES (?)", [(revision,)] if revision else [])
        opened.commit()
    (_, found) = examine_file(folder / "tidemill.db").findings
    assert (found.level, found.subject) == (level, "schema")
    assert told in found.sentence


def test_the_doctor_knows_the_revisions_without_the_packages_that_migrate() -> None:
    assert known_revisions() == tuple(revision.name for revision in migrations.history())
    assert check_schema("db", NEWEST).level is Level.OK


def test_who_has_the_lock_is_named_and_asking_takes_it_from_nobody(tmp_path: Path) -> None:
    database = tmp_path / "tidemill.db"
    assert lock_holder(database) is None
    assert list(tmp_path.iterdir()) == []
    lock = FileLock(tmp_path / "tidemill.db.lock")
    lock.acquire()
    assert lock_holder(database) == str(os.getpid())
    lock.release()
    assert lock_holder(database) is None
    lock.acquire()
    lock.release()


def test_a_postgres_that_does_not_answer_is_wrong_and_its_password_is_not_shown() -> None:
    (found,) = check_postgres("postgresql://me:hunter2@127.0.0.1:1/tidemill")
    assert found.level is Level.WRONG
    assert "cannot be reached" in found.sentence
    assert "hunter2" not in found.sentence
    assert [found.level for found in check_postgres("postgresql://me@host:port/x")] == [Level.WRONG]


def test_the_deepest_mount_says_what_kind_of_disk_it_is(tmp_path: Path) -> None:
    mounts = MOUNTS.format(home=tmp_path)
    (tmp_path / "my disk" / "data").mkdir(parents=True)
    assert filesystem_of(tmp_path.parent, mounts) == "ext4"
    assert filesystem_of(tmp_path, mounts) == "nfs4"
    assert filesystem_of(tmp_path / "my disk" / "data", mounts) == "tmpfs"
    assert filesystem_of(tmp_path, "") == ""


def test_sqlite_on_a_network_disk_and_anything_in_memory_are_warnings(tmp_path: Path) -> None:
    mounts = MOUNTS.format(home=tmp_path)
    (tmp_path / "my disk").mkdir()
    assert check_filesystem(tmp_path / "data", mounts, holds_sqlite=True).level is Level.WARNING
    assert check_filesystem(tmp_path / "data", mounts, holds_sqlite=False).level is Level.OK
    assert check_filesystem(tmp_path / "my disk", mounts, holds_sqlite=False).level is Level.WARNING


@pytest.mark.parametrize(
    ("mebibytes", "files", "level"),
    [(10, 1_000, Level.WRONG), (500, 1_000, Level.WARNING), (5_000, 1_000, Level.OK), (5_000, 3, Level.WRONG)],
)
def test_free_space_is_judged_by_bytes_and_by_files(mebibytes: int, files: int, level: Level) -> None:
    assert judge_free_space(Path("/data"), mebibytes << 20, files).level is level
    assert judge_free_space(Path("/data"), 5_000 << 20, None).level is Level.OK
