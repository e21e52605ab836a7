"""Watching a topic: a wake after each commit that notified it, and a slow poll behind."""

import asyncio
from contextlib import aclosing

import pytest

from tests.contract.store.conftest import Customer
from tidemill_services.store import sessions
from tidemill_services.store.database import Changes, Database, Transaction
from tidemill_services.store.opening import open_database
from tidemill_services.store.topics import MODELS, model_topic, session_topic

FAR = 3_600.0  # seconds; no poll comes within a test


def notify(tx: Transaction, *topics: str) -> None:
    for topic in topics:
        tx.notify(topic)


def notify_then_fail(tx: Transaction, topic: str) -> None:
    tx.notify(topic)
    raise LookupError


async def test_a_watch_yields_at_once_and_after_each_commit(database: Database):
    async with asyncio.timeout(60), aclosing(database.changes("t", poll_seconds=FAR)) as changes:
        await anext(changes)
        for _ in range(3):
            await database.write(notify, "t", "other")
            await anext(changes)


async def test_nothing_wakes_the_watch_of_another_topic_nor_a_failed_unit(database: Database):
    async with aclosing(database.changes("t", poll_seconds=FAR)) as changes:
        await settled(database, changes)
        await database.write(notify, "other")
        with pytest.raises(LookupError):
            await database.write(notify_then_fail, "t")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(changes), 0.3)


async def settled(database: Database, changes: Changes) -> None:
    """Take the first yield, and on Postgres the wake that says that listening began."""
    await anext(changes)
    while not database._watchers.hears_all:
        await anext(changes)


async def test_a_cancelled_wait_loses_nothing(database: Database):
    changes = database.changes("t", poll_seconds=FAR)
    await settled(database, changes)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(changes), 0.01)
    await database.write(notify, "t")
    async with asyncio.timeout(60):
        await anext(changes)


async def test_commits_that_come_while_the_watcher_is_busy_are_not_lost(database: Database):
    async with asyncio.timeout(60), aclosing(database.changes("t", poll_seconds=FAR)) as changes:
        await anext(changes)
        await asyncio.gather(*(database.write(notify, "t") for _ in range(20)))
        await anext(changes)


async def test_the_slow_poll_comes_without_any_commit(database: Database):
    async with asyncio.timeout(60), aclosing(database.changes("t", poll_seconds=0.01)) as changes:
        for _ in range(3):
            await anext(changes)


async def test_every_watcher_of_a_topic_is_woken(database: Database):
    async def wait_for_two() -> None:
        async with aclosing(database.changes("t", poll_seconds=FAR)) as changes:
            await anext(changes)
            started.release()
            await anext(changes)

    started = asyncio.Semaphore(0)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(wait_for_two())
        for _ in range(5):
            await started.acquire()
        await database.write(notify, "t")


async def test_a_watch_ends_when_the_database_is_closed(database_url: str):
    database = open_database(database_url)
    await database.open()
    watching = asyncio.create_task(count_all(database))
    await database.write(notify, "t")
    await database.close()
    assert await asyncio.wait_for(watching, 60) >= 1


async def count_all(database: Database) -> int:
    return len([None async for _ in database.changes("t", poll_seconds=FAR)])


async def test_a_started_session_tells_its_model_and_all_models(customer: Customer):
    for topic in (MODELS, model_topic("small")):
        async with asyncio.timeout(60), aclosing(customer.database.changes(topic, poll_seconds=FAR)) as changes:
            await anext(changes)
            await customer.start()
            await anext(changes)
            await customer.stop()


async def test_a_changed_session_tells_its_watchers(customer: Customer):
    session, _ = await customer.start()
    topic = session_topic(session.session_id)
    async with asyncio.timeout(60), aclosing(customer.database.changes(topic, poll_seconds=FAR)) as changes:
        await anext(changes)
        await customer.database.write(sessions.model_became_ready, "small")
        await anext(changes)
