"""An open database of each kind, with an account, a key and two models in it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import insert

from tests.databases import database_url, empty_database_url, postgres_server
from tests.funds import grant
from tidemill_services.domain.session import Session
from tidemill_services.store import accounts, group_commit, sessions, sql_database
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.opening import open_database
from tidemill_services.store.tables import models

__all__ = ["database_url", "empty_database_url", "postgres_server"]


@pytest.fixture(autouse=True)
def _a_slow_machine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers give up after 10 seconds; who tests that says after how many."""
    for module in (group_commit, sql_database):
        monkeypatch.setattr(module, "ANSWER_SECONDS", 60.0)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = open_database(database_url)
    await database.open()
    yield database
    await database.close()


@dataclass(frozen=True, slots=True)
class Customer:
    """An account with one key, and short words for what it does most."""

    database: Database
    account_id: str
    key_id: str

    async def start(self, **changes: Any) -> tuple[Session, bool]:
        wanted = {"model": "small", "holder": "h", "price_microcredits_per_second": 1_250} | changes
        return await self.database.write(
            sessions.start_session, account_id=self.account_id, key_id=self.key_id, **wanted
        )

    async def stop(self, **changes: Any) -> tuple[Session, bool]:
        wanted = {} if "session_id" in changes else {"model": "small"}
        return await self.database.write(
            sessions.stop_session, account_id=self.account_id, key_id=self.key_id, **wanted | {"holder": "h"} | changes
        )

    async def get(self, session_id: str) -> Session:
        return await self.database.read(sessions.get_session, self.account_id, session_id)


@pytest.fixture
async def customer(database: Database) -> Customer:
    await database.write(add_models, "small", "large")
    return await new_customer(database, "first")


async def new_customer(database: Database, account_id: str) -> Customer:
    await database.write(accounts.create_account, account_id, account_id.title())
    await database.write(grant, account_id)
    api_key, _ = await database.write(accounts.create_api_key, account_id, b"secret")
    return Customer(database, account_id, api_key.key_id)


def add_models(tx: Transaction, *names: str) -> None:
    for name in names:
        tx.connection.execute(
            insert(models).values(name=name, digest="0" * 64, manifest="{}", package_path="p", create_ms=tx.now_ms)
        )
