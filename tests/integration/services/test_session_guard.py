"""The guard's loop on real databases: what it tells, when it looks, and what it does while the store is away."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.store.conftest import Customer, add_models, new_customer
from tests.databases import database_url, postgres_server
from tests.integration.scaler.platform import UnsteadyDatabase
from tidemill_services import session_guard, session_signs
from tidemill_services.domain import session_stops
from tidemill_services.domain.session import EndReason, Liveness, Session
from tidemill_services.domain.session_limits import GivenLimits
from tidemill_services.domain.session_use import Use
from tidemill_services.session_guard import SessionGuard
from tidemill_services.session_signs import SessionSigns
from tidemill_services.session_streams import SessionStreams
from tidemill_services.store import session_activity, sessions
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.opening import open_database
from tidemill_services.store.topics import session_topic

__all__ = ["database_url", "postgres_server"]

PATIENCE_SECONDS = 60.0


class Process:
    """What of a control process has to do with sessions' ends."""

    def __init__(self, database: Database, process_id: str) -> None:
        self.streams = SessionStreams()
        self.signs = SessionSigns()
        self.guard = SessionGuard(database, process_id, self.streams, self.signs)


@asynccontextmanager
async def running(database: Database, process_id: str) -> AsyncIterator[Process]:
    process = Process(database, process_id)
    task = asyncio.create_task(process.guard.run(), name=process_id)
    try:
        yield process
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled()


async def begin(customer: Customer, **wanted: Any) -> Session:
    session, _ = await customer.start(**wanted)
    await customer.database.write(sessions.model_became_ready, "small")
    return await customer.get(session.session_id)


async def until(customer: Customer, session: Session, is_so: Callable[[Session], bool]) -> Session:
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for _ in customer.database.changes(session_topic(session.session_id), poll_seconds=0.1):
            now = await customer.get(session.session_id)
            if is_so(now):
                return now
    raise AssertionError(session)


def has_stopped(session: Session) -> bool:
    return not session.is_open


async def test_what_one_process_runs_keeps_the_others_from_ending_it(database_url: str):
    async with AsyncExitStack() as stack:
        databases = [open_database(database_url) for _ in range(2 if database_url.startswith("postgres") else 1)]
        for database in databases:
            await database.open()
            stack.push_async_callback(database.close)
        await databases[0].write(add_models, "small", "large")
        customer = await new_customer(databases[0], "first")
        here, there = [
            await stack.enter_async_context(running(databases[number % len(databases)], f"host{number}.1"))
            for number in range(2)
        ]
        session, _ = await customer.start(limits=GivenLimits(idle_timeout_ms=1_000))
        with here.streams.call(session.session_id):
            await until(customer, session, lambda session: session.activity.busy_until_ms is not None)
            await customer.database.write(sessions.model_became_ready, "small")  # all can know that it is busy
            session = await customer.get(session.session_id)
            with there.streams.call(session.session_id):
                await asyncio.sleep(1.0)
            await asyncio.sleep(2.5)
            busy = await customer.get(session.session_id)
            assert busy.is_open
            assert busy.activity.busy_until_ms is not None
        ended = await until(customer, session, has_stopped)
        assert ended.end_reason is EndReason.IDLE
        assert ended.end_ms == ended.activity.last_ms + 1_000
        assert ended.billed_ms == ended.end_ms - session.start_ms >= 4_400


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[UnsteadyDatabase]:
    database = UnsteadyDatabase(tmp_path / "tidemill.db")
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def customer(database: UnsteadyDatabase) -> Customer:
    await database.write(add_models, "small", "large")
    return await new_customer(database, "first")


async def test_an_end_is_known_when_the_process_stopped_in_order(database: UnsteadyDatabase, customer: Customer):
    session = await begin(customer)
    async with running(database, "host.1") as process:
        with process.streams.call(session.session_id):
            await until(customer, session, lambda session: session.activity.busy_until_ms is not None)
    told = await customer.get(session.session_id)
    assert told.activity.busy_until_ms is None
    assert told.activity.last_ms > session.start_ms


async def test_many_short_calls_are_told_a_few_times(
    database: UnsteadyDatabase, customer: Customer, monkeypatch: pytest.MonkeyPatch
):
    told = 0
    tell = session_activity.tell_activity

    def counted(tx: Transaction, process_id: str, news: session_activity.News) -> None:
        nonlocal told
        told += 1
        tell(tx, process_id, news)

    monkeypatch.setattr(session_activity, "tell_activity", counted)
    session = await begin(customer)
    began = time.monotonic()
    async with running(database, "host.1") as process:
        for _ in range(200):
            with process.streams.call(session.session_id):
                await asyncio.sleep(0.005)
    assert 1 <= told <= 2 + (time.monotonic() - began) / session_guard.PAUSE_SECONDS


@pytest.mark.rule("S25")
async def test_while_the_store_is_away_nothing_is_lost_and_nothing_ended_that_ran(
    database: UnsteadyDatabase, customer: Customer
):
    session, _ = await customer.start(limits=GivenLimits(idle_timeout_ms=2_000))
    async with running(database, "host.1") as process:
        with process.streams.call(session.session_id):
            await until(customer, session, lambda session: session.activity.busy_until_ms is not None)
            await database.write(sessions.model_became_ready, "small")  # it is known to be busy
            session = await customer.get(session.session_id)
            database.is_away = True
            await asyncio.sleep(1.5)
        database.is_away = False
        ended = await until(customer, session, has_stopped)
        assert ended.end_ms == ended.activity.last_ms + 2_000
        assert ended.activity.last_ms > session.start_ms + 1_500


async def test_a_watch_and_heartbeats_keep_a_holder_and_silence_loses_it(
    database: UnsteadyDatabase, customer: Customer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(session_guard, "HEARING_SECONDS", 0.1)
    monkeypatch.setattr(session_signs, "WATCH_SIGN_SECONDS", 0.2)
    monkeypatch.setattr(session_stops, "HOLDER_LOST_MS", 2_000)
    monkeypatch.setattr(session_stops, "HOLDER_BILLED_MS", 500)
    session = await begin(customer, holder="library", liveness=Liveness.HEARTBEAT)
    async with running(database, "host.1") as process:
        with process.signs.watching(session.session_id, "library"):
            await asyncio.sleep(3.0)
        process.signs.hear(session.session_id, "library")
        assert (await customer.get(session.session_id)).is_open
        ended = await until(customer, session, has_stopped)
        assert ended.end_reason is EndReason.LOST
        assert ended.end_ms >= session.start_ms + 3_000 + 500  # the last sign of life, and then some


@pytest.mark.rule("S25")
async def test_what_ran_and_waited_while_the_store_was_away_is_told_later_and_once(
    database: UnsteadyDatabase, customer: Customer
):
    session = await begin(customer)
    async with running(database, "host.1") as process:
        with process.streams.call(session.session_id):
            await until(customer, session, lambda session: session.activity.busy_until_ms is not None)
            database.is_away = True
            began = time.monotonic()
            wait = process.streams.waits.begin(session.session_id)
            process.streams.note_use(session.session_id, Use(1, 20, 300))
            await asyncio.sleep(3.0)
            wait.end()
            waited_ms = (time.monotonic() - began) * 1000
            process.streams.note_use(session.session_id, Use(1, 5, 6))
            database.is_away = False
            told = await until(customer, session, lambda session: session.use.num_generations == 2)
        assert told.use == Use(2, 25, 306)
        stopped, _ = await customer.stop()
        assert 1_900 <= stopped.end_ms - stopped.start_ms - stopped.billed_ms < waited_ms
    assert (await customer.get(session.session_id)).use == Use(2, 25, 306)


@pytest.mark.rule("S5")
async def test_a_wait_is_told_while_it_lasts_and_the_clock_runs_again_after_it(
    database: UnsteadyDatabase, customer: Customer
):
    session = await begin(customer)
    async with running(database, "host.1") as process:
        with process.streams.call(session.session_id):
            waits = [process.streams.waits.begin(session.session_id) for _ in range(2)]
            short = process.streams.waits.begin(session.session_id)
            await asyncio.sleep(0.2)
            short.end()
            await until(customer, session, lambda session: session.clock_since_ms is None)
            waits[0].end()
            await asyncio.sleep(1.0)
            assert (await customer.get(session.session_id)).clock_since_ms is None
            waits[1].end()
            waits[1].end()  # once more is fine
            again = await until(customer, session, lambda session: session.clock_since_ms is not None)
            assert again.clock_since_ms >= session.start_ms + 2_000
            assert again.billed_ms >= 1_000
