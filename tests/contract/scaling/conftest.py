"""An open database of each kind, in which time is what the test says."""

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from tests.databases import database_url, postgres_server
from tests.funds import grant
from tests.integration.scaler.platform import manifest_json
from tidemill_services.store import accounts, models, sessions
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.opening import open_database

__all__ = ["database_url", "postgres_server"]

T = TypeVar("T")


@dataclass
class Mill:
    """A database and the time, in milliseconds from the test's start."""

    database: Database
    began_ms: int
    now: int = 0
    key_id: str = ""

    async def do(self, unit: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a unit at the test's time."""
        return await self.database.write(_at, self.began_ms + self.now, unit, *args, **kwargs)

    async def register(self, name: str, **scaling: int) -> None:
        """Make a model known."""
        manifest = manifest_json(**scaling)
        digest = hashlib.sha256(manifest.encode()).hexdigest()
        await self.do(models.register_model, name=name, digest=digest, manifest_json=manifest, package_path="/p")

    async def start_session(self, model: str) -> str:
        """Open a session; return its id."""
        session, _ = await self.do(
            sessions.start_session,
            account_id="someone",
            key_id=self.key_id,
            model=model,
            holder="h",
            price_microcredits_per_second=1_000,
        )
        return session.session_id

    async def clock_runs(self, session_id: str) -> bool:
        """Whether the session is billed now."""
        session = await self.do(sessions.get_session, "someone", session_id)
        return session.clock_since_ms is not None

    async def billed_ms(self, session_id: str) -> int:
        """What closed intervals of the session's clock come to."""
        return (await self.do(sessions.get_session, "someone", session_id)).billed_ms


def _at(tx: Transaction, now_ms: int, unit: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    tx.now_ms = now_ms
    return unit(tx, *args, **kwargs)


def _now_ms(tx: Transaction) -> int:
    return tx.now_ms


@pytest.fixture
async def mill(database_url: str) -> AsyncIterator[Mill]:
    database = open_database(database_url)
    await database.open()
    began_ms = await database.read(_now_ms) + 1_000
    opened = Mill(database, began_ms)
    await database.write(accounts.create_account, "someone", "Someone")
    await database.write(grant, "someone")
    api_key, _ = await database.write(accounts.create_api_key, "someone", b"secret")
    opened.key_id = api_key.key_id
    await opened.register("tide", max_replicas=4)
    yield opened
    await database.close()
