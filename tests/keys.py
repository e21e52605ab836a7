"""Makes API keys in the store of a server that does not run, until the public contract can."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import update

from tests.funds import grant
from tidemill_services.domain.api_key import Role, hash_api_key
from tidemill_services.store import accounts
from tidemill_services.store.database import Transaction
from tidemill_services.store.secret_file import read_or_create_secret
from tidemill_services.store.sqlite import SqliteDatabase
from tidemill_services.store.tables import api_keys

Result = TypeVar("Result")


def make_key(
    data_dir: Path,
    account_id: str,
    *,
    role: Role = Role.USER,
    default_model: str | None = None,
    expire_ms: int | None = None,
    auto_session: bool = False,
) -> str:
    """A new key of an account, which is made too when there is none."""
    secret = read_or_create_secret(data_dir / "secret")

    def create(tx: Transaction) -> str:
        accounts.create_account(tx, account_id, account_id)
        grant(tx, account_id)
        return accounts.create_api_key(
            tx,
            account_id,
            secret,
            role=role,
            default_model=default_model,
            expire_ms=expire_ms,
            auto_session=auto_session,
        )[1]

    return _write(data_dir, create)


def revoke_key(data_dir: Path, api_key: str) -> None:
    """Let a key open nothing from now on."""
    hashed = hash_api_key(read_or_create_secret(data_dir / "secret"), api_key)

    def revoke(tx: Transaction) -> None:
        tx.connection.execute(update(api_keys).where(api_keys.c.secret_hash == hashed).values(revoke_ms=tx.now_ms))

    _write(data_dir, revoke)


def _write(data_dir: Path, unit: Callable[[Transaction], Result]) -> Result:
    async def write() -> Result:
        database = SqliteDatabase(data_dir / "tidemill.db")
        await database.open()
        try:
            return await database.write(unit)
        finally:
            await database.close()

    return asyncio.run(write())
