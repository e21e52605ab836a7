"""What can go wrong with a file: it is told in a sentence, harms nothing else, and work goes on after."""

import asyncio
import sqlite3
import stat
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from tidemill_services.domain.errors import CannotStartError, StoreUnavailableError
from tidemill_services.store import accounts
from tidemill_services.store.clock import Clock
from tidemill_services.store.database import Transaction
from tidemill_services.store.sqlite import SqliteDatabase
from tidemill_services.store.tables import clock

HOUR_MS = 3_600_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tidemill.db"


@pytest.fixture
def poem(path: Path) -> Path:
    path.parent.mkdir()
    path.write_bytes(b"my only copy of a poem" * 100)
    return path


def set_on_the_writer(tx: Transaction, pragma: str) -> None:
    tx.connection.exec_driver_sql(f"PRAGMA {pragma}")


async def test_a_full_disk_is_told_and_work_goes_on_when_there_is_room(path: Path):
    database = SqliteDatabase(path)
    await database.open()
    await database.write(set_on_the_writer, "max_page_count = 40")
    results = await asyncio.gather(
        *(database.write(accounts.create_account, f"a{n}", "x" * 50_000) for n in range(20)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, Exception)]
    assert refused
    assert all(isinstance(error, StoreUnavailableError) and "disk is full" in str(error) for error in refused)
    await database.write(set_on_the_writer, "max_page_count = 100000")
    await database.write(accounts.create_account, "after", "x" * 50_000)
    kept = [result.account_id for result in results if not isinstance(result, Exception)]
    for account_id in [*kept, "after"]:
        assert await database.read(accounts.find_account, account_id)
    await database.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM accounts").fetchone() == (len(kept) + 1,)
    connection.close()


@pytest.mark.rule("S25")
async def test_a_lock_of_another_program_is_told_and_work_goes_on_after_it(path: Path):
    database = SqliteDatabase(path)
    await database.open()
    await database.write(set_on_the_writer, "busy_timeout = 20")
    foreign = sqlite3.connect(path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked by another program"):
        await database.write(accounts.create_account, "a", "")
    assert await database.read(accounts.find_account, "a") is None
    foreign.execute("ROLLBACK")
    foreign.close()
    await database.write(accounts.create_account, "a", "")
    await database.close()


HOLDER = """
import asyncio, pathlib, sys
from tidemill_services.store.sqlite import SqliteDatabase

asyncio.run(SqliteDatabase(pathlib.Path(sys.argv[1])).open())
print("open", flush=True)
sys.stdin.read()
"""


async def test_a_second_process_is_refused_and_the_first_one_named(path: Path):
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, path, stdin=PIPE, stdout=PIPE)
    assert await child.stdout.readline() == b"open\n"
    with pytest.raises(CannotStartError, match=f"in use by process {child.pid}: stop that one"):
        await SqliteDatabase(path).open()
    child.kill()
    await child.communicate()
    database = SqliteDatabase(path)
    await database.open()
    await database.close()


async def test_a_file_that_is_no_database_is_told_and_left_as_it_is(poem: Path):
    with pytest.raises(CannotStartError, match="not a SQLite database"):
        await SqliteDatabase(poem).open()
    assert await asyncio.to_thread(poem.read_bytes) == b"my only copy of a poem" * 100


async def test_a_path_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotStartError, match="cannot be opened"):
        await SqliteDatabase(tmp_path / "file" / "tidemill.db").open()


async def test_only_the_owner_may_read_the_database(path: Path):
    database = SqliteDatabase(path)
    await database.open()
    await database.write(accounts.create_account, "a", "")
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    await database.close()


async def test_every_commit_is_synced_and_foreign_keys_hold(path: Path):
    database = SqliteDatabase(path)
    await database.open()
    pragmas = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    for pragma, value in pragmas.items():
        statement = f"PRAGMA {pragma}"
        assert await database.write(lambda tx, sql=statement: tx.connection.exec_driver_sql(sql).scalar_one()) == value
    await database.close()


@pytest.mark.rule("S22")
async def test_time_goes_on_from_the_mark_when_the_wall_clock_went_back(path: Path):
    now_ms = 1_800_000_000_000
    before = await time_of_one_unit(path, wall_ms=now_ms)
    after = await time_of_one_unit(path, wall_ms=now_ms - 2 * HOUR_MS)
    assert before == now_ms
    assert before <= after < before + 60_000


async def time_of_one_unit(path: Path, *, wall_ms: int) -> int:
    database = SqliteDatabase(path, clock=Clock(wall_ns=lambda: wall_ms * 1_000_000, monotonic_ns=lambda: 0))
    await database.open()
    now_ms = await database.write(lambda tx: tx.now_ms)
    mark_ms = await database.read(lambda tx: tx.connection.execute(select(clock.c.high_water_ms)).scalar_one())
    assert mark_ms == now_ms
    await database.close()
    return now_ms


async def test_a_file_that_may_not_be_written_is_told_and_still_read(path: Path):
    database = SqliteDatabase(path)
    await database.open()
    with pytest.raises(StoreUnavailableError, match="may not be written"):
        await database.write(set_on_the_writer, "query_only = 1")  # what a disk says that was mounted read-only
    with pytest.raises(StoreUnavailableError, match="may not be written"):
        await database.write(accounts.create_account, "a", "")
    assert await database.read(accounts.find_account, "a") is None
    await database.close()


async def test_a_unit_that_writes_where_it_may_only_read_is_no_fault_of_the_file(path: Path):
    database = SqliteDatabase(path)
    await database.open()
    with pytest.raises(DBAPIError):
        await database.read(accounts.create_account, "a", "")
    await database.close()
