"""What is remembered of the store: asked for once, and forgotten with the commit that changes it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.store.conftest import Customer
from tests.databases import sqlite_file
from tidemill_services.store import memory, sessions
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.memory import Memory
from tidemill_services.store.sqlite import SqliteDatabase
from tidemill_services.store.topics import session_topic


class Counted:
    """A unit that counts how often it ran."""

    def __init__(self) -> None:
        self.num_runs = 0

    def read(self, _tx: Transaction, value: str) -> str:
        self.num_runs += 1
        if not value:
            raise LookupError
        return value


def notify(tx: Transaction, topic: str) -> None:
    tx.notify(topic)


@pytest.fixture(autouse=True)
def long_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing gets old within a test, however slow the machine is."""
    monkeypatch.setattr(memory, "FRESH_SECONDS", 3600.0)


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Database]:
    """Where nothing is forgotten without a reason; Postgres may tell us of one commit twice."""
    database = SqliteDatabase(sqlite_file(tmp_path))
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def remembered(sqlite: Database) -> Memory[str, str]:
    return Memory(sqlite, lambda key, value: f"{key}/{value}")


async def test_an_answer_is_read_once_for_each_key(remembered: Memory[str, str]) -> None:
    unit = Counted()
    answers = [await remembered.ask(key, unit.read, "v") for key in ("a", "a", "b", "a", "b")]
    assert answers == ["v"] * 5
    assert unit.num_runs == 2


async def test_an_error_is_not_remembered(remembered: Memory[str, str]) -> None:
    unit = Counted()
    for _ in range(2):
        with pytest.raises(LookupError):
            await remembered.ask("a", unit.read, "")
    assert await remembered.ask("a", unit.read, "v") == "v"
    assert unit.num_runs == 3


async def test_it_is_forgotten_when_it_is_old(remembered: Memory[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    unit = Counted()
    await remembered.ask("a", unit.read, "v")
    monkeypatch.setattr(memory, "FRESH_SECONDS", 0.0)
    await remembered.ask("a", unit.read, "v")
    assert unit.num_runs == 2


async def test_a_commit_that_notifies_its_topic_is_heard_of_before_the_writer_goes_on(
    database: Database,
) -> None:
    remembered: Memory[str, str] = Memory(database, lambda key, value: f"{key}/{value}")
    for _ in range(5):
        await remembered.ask("a", Counted().read, "v")
        await database.write(notify, "a/v")
        assert not remembered.holds("a")


async def test_what_another_topic_hears_changes_nothing(sqlite: Database, remembered: Memory[str, str]) -> None:
    unit = Counted()
    await remembered.ask("a", unit.read, "v")
    await sqlite.write(notify, "b/v")
    assert remembered.holds("a")
    await remembered.ask("a", unit.read, "v")
    assert unit.num_runs == 1


async def test_what_changed_while_it_was_read_does_not_hold(database: Database) -> None:
    remembered: Memory[str, str] = Memory(database, lambda key, value: f"{key}/{value}")
    reading = asyncio.create_task(remembered.ask("a", Counted().read, "v"))
    await asyncio.sleep(0)  # it has asked, and no answer can have come yet
    await database.write(notify, "a/v")
    await reading
    assert not remembered.holds("a")


async def test_a_session_that_ends_is_not_remembered_as_open(customer: Customer) -> None:
    remembered: Memory[str, object] = Memory(
        customer.database, lambda _key, session: session_topic(getattr(session, "session_id", ""))
    )
    for _ in range(3):
        session, _ = await customer.start()
        for _ in range(2):
            found = await remembered.ask("open", sessions.open_session_of, customer.key_id, "small")
            assert getattr(found, "session_id", "") == session.session_id
        await customer.stop()
        assert not remembered.holds("open")
