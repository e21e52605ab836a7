"""Who calls: remembered for a moment, and forgotten as soon as a key or an account changes anywhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from tests.contract.store.conftest import Customer, new_customer
from tidemill_services import identity
from tidemill_services.domain.api_key import Role, revoked
from tidemill_services.domain.errors import ApiKeyInvalidError
from tidemill_services.domain.limits import UsageLimits
from tidemill_services.identity import Identities
from tidemill_services.store import accounts, api_keys
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.opening import open_database
from tidemill_services.store.secret_file import PlatformSecrets

SECRET, OLD = b"s" * 32, b"o" * 32


@asynccontextmanager
async def running(database: Database) -> AsyncIterator[Identities]:
    identities = Identities(database, PlatformSecrets(SECRET))
    task = asyncio.create_task(identities.run())
    try:
        yield identities
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def _nothing_is_forgotten_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "FRESH_SECONDS", 3_600.0)


async def refused(identities: Identities, secret: str) -> None:
    """Return once the key is refused."""
    with suppress(ApiKeyInvalidError):
        async with asyncio.timeout(60):
            while True:
                await identities.identify(secret)
                await asyncio.sleep(0.01)


def revoke(tx: Transaction, account_id: str, key_id: str) -> None:
    before = api_keys.get_api_key(tx, account_id, key_id)
    api_keys.save_api_key(tx, before, revoked(before, tx.now_ms), actor="", action="RevokeApiKey")


@pytest.mark.rule("A10")
async def test_a_revoked_key_is_refused_although_it_was_remembered(customer: Customer):
    made, secret = await customer.database.write(accounts.create_api_key, "first", SECRET)
    async with running(customer.database) as identities:
        for _ in range(3):
            assert (await identities.identify(secret)).key_id == made.key_id
        await customer.database.write(revoke, "first", made.key_id)
        await refused(identities, secret)


async def test_new_limits_of_the_account_reach_the_callers_of_its_keys(customer: Customer):
    def limit(tx: Transaction) -> None:
        before = accounts.get_account(tx, "first")
        accounts.save_account(tx, before, replace(before, limits=UsageLimits(5)), actor="")

    _, secret = await customer.database.write(accounts.create_api_key, "first", SECRET, role=Role.ADMIN)
    async with running(customer.database) as identities:
        assert (await identities.identify(secret)).account_limits == UsageLimits()
        await customer.database.write(limit)
        async with asyncio.timeout(60):
            while (await identities.identify(secret)).account_limits != UsageLimits(5):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_key_under_the_platforms_old_secret_opens_and_moves_to_the_new_one(customer: Customer):
    made, secret = await customer.database.write(accounts.create_api_key, "first", OLD)
    with pytest.raises(ApiKeyInvalidError):
        await Identities(customer.database, PlatformSecrets(SECRET)).identify(secret)
    during = Identities(customer.database, PlatformSecrets(SECRET, OLD))
    assert (await during.identify(secret)).key_id == made.key_id
    assert (await Identities(customer.database, PlatformSecrets(SECRET)).identify(secret)).key_id == made.key_id


@pytest.mark.rule("A10")
async def test_another_process_hears_of_a_revoked_key(postgres_server):
    url = postgres_server.copy_database()
    here, there = open_database(url), open_database(url)
    await here.open()
    await there.open()
    customer = await new_customer(here, "first")
    made, secret = await here.write(accounts.create_api_key, customer.account_id, SECRET)
    async with running(there) as identities:
        assert (await identities.identify(secret)).key_id == made.key_id
        await here.write(revoke, "first", made.key_id)
        await refused(identities, secret)
    await here.close()
    await there.close()
    postgres_server.drop_database(url)
