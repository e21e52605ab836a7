"""Makes API keys in the store of a server that does not run, until the public contract can."""

import asyncio
from pathlib import Path

from tidemill_services.domain.api_key import Role
from tidemill_services.store import accounts
from tidemill_services.store.database import Transaction
from tidemill_services.store.secret_file import read_or_create_secret
from tidemill_services.store.sqlite import SqliteDatabase


def make_key(data_dir: Path, account_id: str, *, role: Role = Role.USER, default_model: str | None = None) -> str:
    """A new key of an account, which is made too when there is none."""
    secret = read_or_create_secret(data_dir / "secret")

    def create(tx: Transaction) -> str:
        accounts.create_account(tx, account_id, account_id)
        return accounts.create_api_key(tx, account_id, secret, role=role, default_model=default_model)[1]

    async def write() -> str:
        database = SqliteDatabase(data_dir / "tidemill.db")
        await database.open()
        try:
            return await database.write(create)
        finally:
            await database.close()

    return asyncio.run(write())
