"""What lived when the backup was made has ended in what is restored, and costs nobody anything."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.backups import LIVING, Places, backed_up, places, restored
from tests.contract.store.books import assert_proven
from tests.contract.store.conftest import add_models, new_customer
from tests.contract.store.test_sessions import add_ready_replica
from tidemill_services.domain.ledger import Balance, LedgerEntry
from tidemill_services.domain.session import EndReason, SessionState
from tidemill_services.store import hosts, ledger, session_activity, sessions
from tidemill_services.store.backups.dump import LEFT_OUT
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.opening import open_database
from tidemill_services.store.session_activity import News
from tidemill_services.store.tables import metadata

__all__ = ["places"]


@dataclass
class Platform:
    """A database that serves: a session whose clock runs and of which a stream runs, one that waits, one that stops."""

    database: Database
    running: str
    waiting: str
    stopping: str
    account_id: str


@pytest.fixture
async def platform(database: Database) -> Platform:
    await database.write(add_models, "small", "large")
    customer = await new_customer(database, "first")
    await database.write(hosts.renew_host, "h", 4)
    await database.write(add_ready_replica, "small")
    stopped, _ = await customer.start()
    await customer.stop()
    running, _ = await customer.start()
    waiting, _ = await customer.start(model="large")
    await database.write(session_activity.tell_activity, "h.1", News(running=[running.session_id]))
    return Platform(database, running.session_id, waiting.session_id, stopped.session_id, customer.account_id)


async def test_open_sessions_are_ended_as_of_the_backup_and_nothing_lives(
    platform: Platform, database_url: str, places: Places, tmp_path: Path
):
    last_sign_ms = await platform.database.write(renewed_host)
    backup = await asyncio.to_thread(backed_up, database_url, tmp_path / "file")
    there = places.other(database_url, "there")
    done = await asyncio.to_thread(restored, there, tmp_path / "file")
    assert (done.afterlife.num_ended, done.afterlife.num_kept) == (2, 0)
    before = await platform.database.read(sessions.get_session, platform.account_id, platform.running)
    database = open_database(there)
    await database.open()
    running, waiting, stopped = [
        await database.read(sessions.get_session, platform.account_id, session_id)
        for session_id in (platform.running, platform.waiting, platform.stopping)
    ]
    assert {running.state, waiting.state, stopped.state} == {SessionState.ENDED}
    assert (running.end_reason, waiting.end_reason) == (EndReason.ADMIN, EndReason.ADMIN)
    assert running.end_ms == backup.header.time_ms
    assert running.billed_ms == last_sign_ms - before.clock_since_ms
    entries_before, _ = await platform.database.read(ledger_of, platform.account_id)
    entries, balance = await database.read(ledger_of, platform.account_id)
    assert entries[: len(entries_before)] == entries_before
    assert (balance.held_microcredits, balance.balance_microcredits) == (0, entries[-1].balance_microcredits)
    await assert_proven(database)
    for table in metadata.sorted_tables:
        if table.name in LIVING | LEFT_OUT.keys() - {"clock"}:
            assert await database.read(lambda tx, t=table: tx.connection.execute(select(t)).all()) == [], table.name
    await database.close()


async def test_sessions_that_are_kept_go_on_as_after_a_crash_and_the_time_between_is_not_billed(
    platform: Platform, database_url: str, places: Places, tmp_path: Path
):
    before = await platform.database.read(sessions.get_session, platform.account_id, platform.running)
    last_sign_ms = await platform.database.write(renewed_host)
    await asyncio.to_thread(backed_up, database_url, tmp_path / "file")
    there = places.other(database_url, "there")
    done = await asyncio.to_thread(restored, there, tmp_path / "file", keep_sessions=True)
    assert (done.afterlife.num_ended, done.afterlife.num_kept) == (0, 2)
    database = open_database(there)
    await database.open()
    after = await database.read(sessions.get_session, platform.account_id, platform.running)
    assert (after.state, after.clock_since_ms) == (SessionState.ACTIVE, None)
    assert after.billed_ms == last_sign_ms - before.clock_since_ms
    assert after.holders == before.holders
    assert after.activity.last_ms == before.activity.last_ms  # what ran has ended when it was last told of
    assert not after.activity.is_busy(last_sign_ms)
    await database.write(sessions.model_became_ready, "small")
    again = await database.read(sessions.get_session, platform.account_id, platform.running)
    assert again.clock_since_ms >= last_sign_ms
    await assert_proven(database)
    await database.close()


def ledger_of(tx: Transaction, account_id: str) -> tuple[tuple[LedgerEntry, ...], Balance]:
    return ledger.list_entries(tx, account_id).entries, ledger.balance_of(tx, account_id)


def renewed_host(tx: Transaction) -> int:
    hosts.renew_host(tx, "h", 4)
    return tx.now_ms


async def test_a_second_restore_of_what_was_restored_changes_nothing(
    platform: Platform, database_url: str, places: Places, tmp_path: Path
):
    await asyncio.to_thread(backed_up, database_url, tmp_path / "file")
    there = places.other(database_url, "there")
    await asyncio.to_thread(restored, there, tmp_path / "file")
    first = await asyncio.to_thread(backed_up, there, tmp_path / "second")
    back = places.other(there, "back")
    await asyncio.to_thread(restored, back, tmp_path / "second")
    second = await asyncio.to_thread(backed_up, back, tmp_path / "third")
    assert first.totals.content_sha256 == second.totals.content_sha256
