"""Units of work on accounts and keys."""

import pytest
from sqlalchemy import select, update

from tests.contract.store.conftest import Customer
from tidemill_services.domain.api_key import Role, hash_api_key, is_well_formed
from tidemill_services.store import accounts
from tidemill_services.store import api_keys as api_key_units
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.tables import api_keys


async def test_making_an_account_again_returns_the_one_that_is_there(database: Database):
    first = await database.write(accounts.create_account, "a", "Ada")
    assert await database.write(accounts.create_account, "a", "Bea") == first
    assert await database.read(accounts.find_account, "b") is None


@pytest.mark.rule("A8")
async def test_a_key_is_found_by_its_hash_with_all_its_settings(customer: Customer):
    api_key, secret = await customer.database.write(
        accounts.create_api_key,
        "first",
        b"platform",
        display_name="laptop",
        role=Role.ADMIN,
        default_model="small",
        expire_ms=4_000_000_000_000,
    )
    assert is_well_formed(secret)
    found = await customer.database.read(accounts.find_key_by_hash, hash_api_key(b"platform", secret))
    assert found == api_key
    assert (found.role, found.default_model, found.display_name) == (Role.ADMIN, "small", "laptop")


async def test_a_key_is_not_found_under_another_secret_or_unknown(customer: Customer):
    _, secret = await customer.database.write(accounts.create_api_key, "first", b"platform")
    assert await customer.database.read(accounts.find_key_by_hash, hash_api_key(b"other", secret)) is None
    assert await customer.database.read(accounts.find_key_by_hash, b"\x00" * 32) is None


@pytest.mark.rule("A8")
async def test_expired_and_revoked_keys_open_nothing(customer: Customer):
    for column in ("expire_ms", "revoke_ms"):
        api_key, secret = await customer.database.write(accounts.create_api_key, "first", b"platform")
        secret_hash = hash_api_key(b"platform", secret)
        assert await customer.database.read(accounts.find_key_by_hash, secret_hash) == api_key
        await customer.database.write(set_to_now, api_key.key_id, column)
        assert await customer.database.read(accounts.find_key_by_hash, secret_hash) is None


def set_to_now(tx: Transaction, key_id: str, column: str) -> None:
    tx.connection.execute(update(api_keys).where(api_keys.c.key_id == key_id).values({column: tx.now_ms}))


@pytest.mark.rule("A5")
async def test_the_key_itself_is_stored_nowhere(customer: Customer):
    _, secret = await customer.database.write(accounts.create_api_key, "first", b"platform")
    rows = await customer.database.read(lambda tx: tx.connection.execute(select(api_keys)).all())
    assert secret.removeprefix("tm_") not in repr(rows)


async def test_a_key_opens_no_sessions_by_itself_unless_it_is_told_to(database: Database):
    await database.write(accounts.create_account, "a", "A")
    for wanted in (False, True):
        api_key, _ = await database.write(accounts.create_api_key, "a", b"platform", auto_session=wanted)
        assert (await database.read(accounts.find_key_by_hash, api_key.secret_hash)).auto_session is wanted
        await database.write(api_key_units.set_auto_session, "a", api_key.key_id, auto_session=not wanted)
        assert (await database.read(accounts.find_key_by_hash, api_key.secret_hash)).auto_session is not wanted
