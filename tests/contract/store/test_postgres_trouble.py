"""What is particular to a server that several processes share: turns, lost connections, notifications, time."""

import asyncio
import threading
import time
from contextlib import aclosing

import psycopg
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from tests.contract.store.test_units_of_work import count_accounts, create_next
from tests.databases import PostgresServer
from tidemill_services.domain.errors import CannotStartError, StoreUnavailableError
from tidemill_services.store import accounts, migrations, postgres
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.postgres import PostgresDatabase

FAR = 3_600.0


@pytest.fixture
def url(postgres_server: PostgresServer):
    url = postgres_server.copy_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
async def two_processes(url: str):
    """Two databases on one server, as two control processes have them."""
    databases = (PostgresDatabase(url), PostgresDatabase(url))
    for database in databases:
        await database.open()
    yield databases
    for database in databases:
        await database.close()


def test_a_migration_may_rest_for_longer_than_a_unit_of_work(url: str, monkeypatch: pytest.MonkeyPatch):
    upgrade = migrations.upgrade

    def slow_upgrade(connection: Connection) -> None:
        time.sleep(1.5)
        upgrade(connection)

    monkeypatch.setattr(postgres, "_TURN_SECONDS", 1)
    monkeypatch.setattr(migrations, "upgrade", slow_upgrade)
    backend = postgres.PostgresBackend(url)
    backend.prepare()
    backend.dispose()


def cut_connections(url: str) -> None:
    """Break every connection to the database but our own, as a restart of the server does; all are gone then."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_units_of_two_processes_run_as_if_alone(two_processes: tuple[Database, Database]):
    numbers = await asyncio.gather(*(database.write(create_next) for _ in range(60) for database in two_processes))
    assert sorted(numbers) == list(range(120))


async def test_a_commit_in_one_process_wakes_the_watchers_in_another(two_processes: tuple[Database, Database]):
    here, there = two_processes
    async with asyncio.timeout(60), aclosing(there.changes("t", poll_seconds=FAR)) as changes:
        await anext(changes)
        for _ in range(3):
            await here.write(lambda tx: tx.notify("t"))
            await anext(changes)


async def test_a_process_that_is_stopped_in_its_turn_does_not_stop_the_others(two_processes: tuple[Database, Database]):
    stopped, other = two_processes
    entered, proceed = threading.Event(), threading.Event()

    def create_after_a_long_pause(tx: Transaction) -> int:
        number = count_accounts(tx)
        entered.set()
        assert proceed.wait(timeout=60)
        accounts.create_account(tx, "late", "")
        return number

    pausing = asyncio.create_task(stopped.write(create_after_a_long_pause))
    await asyncio.to_thread(entered.wait, 60)
    async with asyncio.timeout(60):
        await other.write(accounts.create_account, "other", "")
    proceed.set()
    assert await pausing == 1  # it lost its turn, and ran again on what the other had written


async def test_a_connection_lost_between_units_costs_nobody_an_error(url: str):
    database = PostgresDatabase(url)
    await database.open()
    await database.write(accounts.create_account, "a", "")
    cut_connections(url)
    await database.write(accounts.create_account, "b", "")
    assert await database.read(count_accounts) == 2
    await database.close()


async def test_a_connection_lost_in_a_unit_is_told_and_saves_nothing(url: str):
    database = PostgresDatabase(url)
    await database.open()

    def create_and_lose_the_connection(tx: Transaction) -> None:
        accounts.create_account(tx, "a", "")
        cut_connections(url)
        accounts.create_account(tx, "b", "")

    with pytest.raises(StoreUnavailableError, match="nothing was saved"):
        await database.write(create_and_lose_the_connection)
    assert await database.read(count_accounts) == 0
    await database.close()


async def test_a_connection_lost_before_the_commit_is_told_as_unknown(url: str):
    database = PostgresDatabase(url)
    await database.open()
    await database.write(
        lambda tx: tx.connection.exec_driver_sql(
            "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NULL; END'"
        )
    )
    await database.write(
        lambda tx: tx.connection.exec_driver_sql(
            "CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON accounts DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION cut()"
        )
    )
    with pytest.raises(StoreUnavailableError, match="unknown whether it was saved: repeat with the same request_id"):
        await database.write(accounts.create_account, "a", "")
    await database.close()


async def test_listening_goes_on_after_a_lost_connection(two_processes: tuple[Database, Database], url: str):
    here, there = two_processes
    async with asyncio.timeout(60), aclosing(there.changes("t", poll_seconds=FAR)) as changes:
        await anext(changes)
        cut_connections(url)
        await anext(changes)  # it listens again, and may have missed something
        await here.write(lambda tx: tx.notify("t"))
        await anext(changes)


async def test_a_server_that_is_away_is_told(tmp_path):
    database = PostgresDatabase(f"postgresql://nobody@/none?host={tmp_path}")
    with pytest.raises(CannotStartError, match=r"The server or its driver says: .*No such file"):
        await database.open()


@pytest.mark.rule("S22")
async def test_time_comes_from_the_server_and_never_goes_back_behind_the_mark(url: str):
    database = PostgresDatabase(url)
    await database.open()
    server_ms = await database.read(
        lambda tx: tx.connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp()) * 1000").scalar_one()
    )
    assert abs(await database.write(lambda tx: tx.now_ms) - server_ms) < 60_000
    ahead_ms = int(server_ms) + 3_600_000
    await database.write(lambda tx: tx.connection.exec_driver_sql(f"UPDATE clock SET high_water_ms = {ahead_ms}"))
    first_ms = await database.write(lambda tx: tx.now_ms)
    assert ahead_ms <= first_ms < ahead_ms + 60_000
    await asyncio.sleep(0.05)
    assert await database.write(lambda tx: tx.now_ms) > first_ms  # and it does not stand there either
    await database.close()


async def test_the_mark_follows_the_time_that_units_were_given(url: str):
    database = PostgresDatabase(url)
    await database.open()
    now_ms = await database.write(lambda tx: tx.now_ms)
    async with asyncio.timeout(60):
        async for _ in database.changes("none", poll_seconds=0.05):
            if await database.read(mark_ms) >= now_ms:
                break
    await database.close()


def mark_ms(tx: Transaction) -> int:
    return tx.connection.exec_driver_sql("SELECT high_water_ms FROM clock").scalar_one()


def allow_writes(url: str, *, allowed: bool) -> None:
    """Let the connections made from now on write, or only read, as those to a standby do."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {"off" if allowed else "on"}')


async def test_a_server_that_takes_no_writes_is_told_and_left_for_the_next_one(url: str):
    database = PostgresDatabase(url)
    await database.open()
    allow_writes(url, allowed=False)
    cut_connections(url)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="takes no writes now"):
            await database.write(accounts.create_account, "a", "")
        assert await database.read(count_accounts) == 0
    allow_writes(url, allowed=True)
    await database.write(accounts.create_account, "a", "")  # over a new connection
    await database.close()


async def test_a_unit_that_writes_where_it_may_only_read_is_no_fault_of_the_server(url: str):
    database = PostgresDatabase(url)
    await database.open()
    with pytest.raises(DBAPIError):
        await database.read(accounts.create_account, "a", "")
    await database.close()
