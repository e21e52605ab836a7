"""What every database promises about units of work."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.exc import DBAPIError

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.store import accounts, group_commit, sql_database
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.opening import open_database
from tidemill_services.store.tables import accounts as accounts_table


def count_accounts(tx: Transaction) -> int:
    return tx.connection.execute(select(func.count()).select_from(accounts_table)).scalar_one()


def account_ids(tx: Transaction) -> list[str]:
    return list(tx.connection.execute(select(accounts_table.c.account_id)).scalars())


def create_then_fail(tx: Transaction, account_id: str) -> None:
    accounts.create_account(tx, account_id, "")
    tx.notify("never")
    raise LookupError(account_id)


async def hold_the_writer(database: Database) -> tuple[Callable[[], None], asyncio.Task[None]]:
    """Keep the writer busy in a unit, so that what is handed in meanwhile waits together. Returns the release."""
    entered, release = threading.Event(), threading.Event()

    def wait(_tx: Transaction) -> None:
        entered.set()
        assert release.wait(timeout=60)

    task = asyncio.create_task(database.write(wait))
    assert await asyncio.to_thread(entered.wait, 60)
    return release.set, task


async def test_what_was_written_is_read_after_a_reopen(database_url: str):
    for expected in (1, 2):
        database = open_database(database_url)
        await database.open()
        await database.write(accounts.create_account, f"account-{expected}", "")
        assert await database.read(count_accounts) == expected
        await database.close()


async def test_a_unit_returns_what_it_computes_and_takes_arguments(database: Database):
    account = await database.write(accounts.create_account, "a", display_name="Ada")
    assert await database.read(accounts.find_account, "a") == account


async def test_a_failing_unit_leaves_no_trace_and_harms_no_neighbour(database: Database):
    release, holding = await hold_the_writer(database)
    writes = [
        asyncio.create_task(database.write(create_then_fail if number % 2 else count_and_create, f"account-{number}"))
        for number in range(20)
    ]
    await asyncio.sleep(0)
    release()
    results = await asyncio.gather(*writes, return_exceptions=True)
    await holding
    for number, result in enumerate(results):
        if number % 2:
            assert isinstance(result, LookupError)
            assert result.args == (f"account-{number}",)
        else:
            assert result == number // 2
    assert sorted(await database.read(account_ids)) == sorted(f"account-{number}" for number in range(0, 20, 2))


def count_and_create(tx: Transaction, account_id: str) -> int:
    before = count_accounts(tx)
    accounts.create_account(tx, account_id, "")
    return before


async def test_a_statement_that_the_database_refuses_harms_no_neighbour(database: Database):
    def insert_twice(tx: Transaction) -> None:
        for _ in range(2):
            tx.connection.execute(
                insert(accounts_table).values(account_id="x", display_name="a customer's words", create_ms=0)
            )

    good, bad, also_good = await asyncio.gather(
        database.write(accounts.create_account, "a", ""),
        database.write(insert_twice),
        database.write(accounts.create_account, "b", ""),
        return_exceptions=True,
    )
    assert isinstance(bad, DBAPIError)
    assert "a customer's words" not in str(bad)
    assert sorted(await database.read(account_ids)) == [good.account_id, also_good.account_id]


async def test_a_unit_that_raises_stop_iteration_reaches_its_caller(database: Database):
    def exhausted(_tx: Transaction) -> None:
        next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await database.write(exhausted)
    assert await database.read(count_accounts) == 0


async def test_units_run_in_the_order_in_which_they_were_handed_in(database: Database):
    order: list[int] = []
    await asyncio.gather(*(database.write(lambda _tx, n=number: order.append(n)) for number in range(300)))
    assert order == list(range(300))


async def test_readers_see_nothing_that_is_not_committed(database: Database):
    written, release = threading.Event(), threading.Event()

    def create_slowly(tx: Transaction) -> None:
        accounts.create_account(tx, "a", "")
        written.set()
        assert release.wait(timeout=60)

    writing = asyncio.create_task(database.write(create_slowly))
    assert await asyncio.to_thread(written.wait, 60)
    assert await database.read(count_accounts) == 0
    release.set()
    await writing
    assert await database.read(count_accounts) == 1


async def test_a_read_keeps_one_snapshot_while_others_write(database: Database):
    started, proceed = threading.Event(), threading.Event()

    def count_twice(tx: Transaction) -> tuple[int, int]:
        first = count_accounts(tx)
        started.set()
        assert proceed.wait(timeout=60)
        return first, count_accounts(tx)

    reading = asyncio.create_task(database.read(count_twice))
    assert await asyncio.to_thread(started.wait, 60)
    await database.write(accounts.create_account, "a", "")
    proceed.set()
    assert await reading == (0, 0)


async def test_a_unit_that_writes_is_refused_by_read(database: Database):
    with pytest.raises(DBAPIError, match=r"read-?only"):
        await database.read(accounts.create_account, "a", "")
    assert await database.read(count_accounts) == 0


async def test_a_cancelled_caller_does_not_stop_the_writer(database: Database):
    release, holding = await hold_the_writer(database)
    writes = [asyncio.create_task(database.write(accounts.create_account, f"a{n}", "")) for n in range(20)]
    await asyncio.sleep(0)
    for write in writes[::2]:
        write.cancel()
    release()
    results = await asyncio.gather(*writes, return_exceptions=True)
    await holding
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False] * 10
    assert {f"a{n}" for n in range(1, 20, 2)} <= set(await database.read(account_ids))


def after_a_condition(monkeypatch: pytest.MonkeyPatch, asked: type) -> threading.Event:
    """Have those who wait for the database give up in no other case than that the event which is returned is set."""
    is_so, give_up = threading.Event(), asked.give_up

    def give_up_then(self: object, *arguments: object) -> None:
        if is_so.is_set():
            give_up(self, *arguments)
        else:
            asyncio.get_running_loop().call_later(0.05, give_up_then, self, *arguments)

    monkeypatch.setattr(asked, "give_up", give_up_then)
    return is_so


async def test_a_silent_database_is_not_waited_for_and_what_was_given_up_never_runs(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(group_commit, "ANSWER_SECONDS", 0.2)
    is_held = after_a_condition(monkeypatch, group_commit._Handed)
    release, holding = await hold_the_writer(database)
    is_held.set()
    given_up = asyncio.create_task(database.write(accounts.create_account, "given-up", ""))
    with pytest.raises(StoreUnavailableError, match="nothing was saved"):
        await given_up
    with pytest.raises(StoreUnavailableError, match="unknown whether it was saved: repeat with the same request_id"):
        await holding
    release()
    monkeypatch.undo()
    await database.write(accounts.create_account, "after", "")
    assert await database.read(account_ids) == ["after"]


async def test_a_reader_that_has_been_answered_may_take_its_time(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sql_database, "ANSWER_SECONDS", 0.2)
    all_have_begun = after_a_condition(monkeypatch, sql_database._Question)
    release, begun = threading.Event(), threading.Barrier(4, action=all_have_begun.set)

    def count_slowly(tx: Transaction) -> int:
        begun.wait(60)
        assert release.wait(timeout=60)
        return count_accounts(tx)

    slow = [asyncio.create_task(database.read(count_slowly)) for _ in range(8)]  # twice as many as there are readers
    late, _ = await asyncio.wait(slow[4:], timeout=60)
    assert {str(task.exception()) for task in late} == {"The database does not answer: try again."}
    release.set()
    assert await asyncio.gather(*slow[:4]) == [0] * 4


async def test_closing_commits_what_was_handed_in(database_url: str):
    database = open_database(database_url)
    await database.open()
    writes = [asyncio.create_task(database.write(accounts.create_account, f"a{n}", "")) for n in range(50)]
    await asyncio.sleep(0)
    await database.close()
    await asyncio.gather(*writes)
    with pytest.raises(StoreUnavailableError, match="closed"):
        await database.write(accounts.create_account, "late", "")
    with pytest.raises(StoreUnavailableError, match="closed"):
        await database.read(count_accounts)
    again = open_database(database_url)
    await again.open()
    assert await again.read(count_accounts) == 50
    await again.close()


@pytest.mark.rule("S22")
async def test_time_never_goes_back_from_unit_to_unit(database: Database):
    times = await asyncio.gather(*(database.write(lambda tx: tx.now_ms) for _ in range(200)))
    assert list(times) == sorted(times)
    assert await database.read(lambda tx: tx.now_ms) >= times[-1]


async def test_a_hundred_increments_at_once_are_a_hundred(database: Database):
    """Units that read what they write run as if alone."""
    numbers = await asyncio.gather(*(database.write(create_next) for _ in range(100)))
    assert sorted(numbers) == list(range(100))


def create_next(tx: Transaction) -> int:
    number = count_accounts(tx)
    accounts.create_account(tx, f"account-{number}", "")
    return number
