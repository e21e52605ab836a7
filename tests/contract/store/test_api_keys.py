"""Units of work that change accounts and keys, and the trail that they leave."""

import dataclasses

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError

from tests.contract.store.conftest import Customer, new_customer
from tidemill_services.domain.api_key import Role, Scope, hash_api_key, revoked
from tidemill_services.domain.errors import (
    AccountNotFoundError,
    ApiKeyNotFoundError,
    FieldInvalidError,
    LastAdminKeyError,
    LimitReachedError,
)
from tidemill_services.domain.limits import UsageLimits
from tidemill_services.domain.session import EndReason, SessionState
from tidemill_services.store import accounts, api_keys, audit
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.tables import api_keys as api_keys_table
from tidemill_services.store.tables import audit_events

OLD, NEW = b"o" * 32, b"n" * 32


async def change(customer: Customer, key_id: str, *, action: str = "UpdateApiKey", **changes: object) -> None:
    def save(tx: Transaction) -> None:
        before = api_keys.get_api_key(tx, customer.account_id, key_id)
        after = dataclasses.replace(before, **changes)
        api_keys.save_api_key(tx, before, after, actor="tester", action=action)

    await customer.database.write(save)


async def make_admin(customer: Customer) -> str:
    made, _ = await customer.database.write(accounts.create_api_key, customer.account_id, OLD, role=Role.ADMIN)
    return made.key_id


async def events(database: Database, account_id: str = "") -> list[tuple[str, str, str]]:
    page = await database.read(audit.list_events, account_id)
    return [(event.actor, event.action, event.resource) for event in page.events]


async def test_a_key_keeps_its_scopes_and_limits(customer: Customer):
    limits = UsageLimits(requests_per_minute=7, concurrent_sessions=2)
    made, secret = await customer.database.write(
        accounts.create_api_key, "first", OLD, scopes=[Scope.JOBS, Scope.ACCOUNT], limits=limits
    )
    found = await customer.database.read(accounts.find_key_by_hash, hash_api_key(OLD, secret))
    assert found == made
    assert (found.scopes, found.limits) == ({Scope.JOBS, Scope.ACCOUNT}, limits)


async def test_an_account_keeps_its_settings(customer: Customer):
    def save(tx: Transaction) -> None:
        before = accounts.get_account(tx, "first")
        after = dataclasses.replace(before, use_cache=False, limits=UsageLimits(1, 2, 3))
        accounts.save_account(tx, before, after, actor="tester")

    await customer.database.write(save)
    found = await customer.database.read(accounts.get_account, "first")
    assert (found.use_cache, found.limits) == (False, UsageLimits(1, 2, 3))
    with pytest.raises(AccountNotFoundError):
        await customer.database.read(accounts.get_account, "nobody")


async def test_keys_are_listed_newest_first_and_page_by_page_for_their_account_only(customer: Customer):
    await new_customer(customer.database, "second")
    four = [(await customer.database.write(accounts.create_api_key, "first", OLD))[0].key_id for _ in range(4)]
    made = [customer.key_id, *four]
    seen, token = [], ""
    while len(seen) < len(made):
        page = await customer.database.read(api_keys.list_api_keys, "first", page_size=2, page_token=token)
        assert 1 <= len(page.api_keys) <= 2
        seen += [api_key.key_id for api_key in page.api_keys]
        token = page.next_page_token
    assert sorted(seen) == sorted(made)
    assert seen == sorted(seen, reverse=True)
    assert token == ""
    with pytest.raises(FieldInvalidError):
        await customer.database.read(api_keys.list_api_keys, "first", page_size=1_001)


async def test_a_key_of_another_account_is_not_found(customer: Customer):
    other = await new_customer(customer.database, "second")
    with pytest.raises(ApiKeyNotFoundError):
        await customer.database.read(api_keys.get_api_key, "first", other.key_id)


@pytest.mark.rule("A7")
async def test_a_rotated_key_opens_with_both_secrets_until_the_overlap_is_over(customer: Customer):
    made, first = await customer.database.write(accounts.create_api_key, "first", OLD)

    async def opens(secret: str) -> bool:
        return await customer.database.read(accounts.find_key_by_hash, hash_api_key(OLD, secret)) is not None

    _, second = await customer.database.write(api_keys.rotate_api_key, made, OLD, overlap_ms=3_600_000, actor="tester")
    assert [await opens(secret) for secret in (first, second)] == [True, True]
    await customer.database.write(
        lambda tx: (
            tx.connection.execute(
                update(api_keys_table)
                .where(api_keys_table.c.key_id == made.key_id)
                .values(old_secret_expire_ms=tx.now_ms)
            ).rowcount
        )
    )
    assert [await opens(secret) for secret in (first, second)] == [False, True]


@pytest.mark.rule("A6")
async def test_a_key_that_is_shown_moves_to_the_platforms_new_secret(customer: Customer):
    _, secret = await customer.database.write(accounts.create_api_key, "first", OLD)
    count = api_keys.count_under_other_secrets
    before = await customer.database.read(count, NEW)
    await customer.database.write(api_keys.hash_anew, secret, OLD, NEW)
    assert await customer.database.read(count, NEW) == before - 1
    assert await customer.database.read(accounts.find_key_by_hash, hash_api_key(OLD, secret)) is None
    assert await customer.database.read(accounts.find_key_by_hash, hash_api_key(NEW, secret)) is not None


@pytest.mark.rule("A10")
async def test_a_revoked_key_opens_nothing_and_its_sessions_end_in_the_same_commit(customer: Customer):
    other = await new_customer(customer.database, "second")
    session, _ = await customer.start()
    neighbours, _ = await other.start()
    await customer.database.write(
        lambda tx: api_keys.save_api_key(
            tx,
            api_keys.get_api_key(tx, "first", customer.key_id),
            revoked(api_keys.get_api_key(tx, "first", customer.key_id), tx.now_ms),
            actor="tester",
            action="RevokeApiKey",
        )
    )
    ended = await customer.get(session.session_id)
    assert (ended.is_open, ended.end_reason) == (False, EndReason.REVOKED)
    assert (await other.get(neighbours.session_id)).is_open


@pytest.mark.rule("A10")
async def test_sessions_of_an_expired_key_are_found_and_ended(customer: Customer):
    session, _ = await customer.start()
    asked = [customer.key_id, "no-such-key"]
    assert await customer.database.read(api_keys.keys_with_sessions_to_end) == []
    assert await customer.database.read(api_keys.ended_keys, asked) == []
    await customer.database.write(
        lambda tx: (
            tx.connection.execute(
                update(api_keys_table).where(api_keys_table.c.key_id == customer.key_id).values(expire_ms=tx.now_ms)
            ).rowcount
        )
    )
    assert await customer.database.read(api_keys.keys_with_sessions_to_end) == [customer.key_id]
    assert await customer.database.read(api_keys.ended_keys, asked) == [customer.key_id]
    assert await customer.database.write(api_keys.end_sessions_of_ended_keys) == 1
    ended = await customer.get(session.session_id)
    assert (ended.state, ended.end_reason) == (SessionState.ENDED, EndReason.REVOKED)
    assert await customer.database.write(api_keys.end_sessions_of_ended_keys) == 0


@pytest.mark.parametrize(
    "changes",
    [{"revoke_ms": 1}, {"role": Role.USER}, {"expire_ms": 10**13}, {"scopes": frozenset({Scope.JOBS})}],
    ids=lambda changes: next(iter(changes)),
)
async def test_the_last_administrators_key_stays_one(customer: Customer, changes: dict[str, object]):
    first, second = await make_admin(customer), await make_admin(customer)
    await change(customer, first, **changes)
    with pytest.raises(LastAdminKeyError):
        await change(customer, second, **changes)
    await change(customer, second, display_name="the last one")


@pytest.mark.rule("A4")
async def test_every_act_is_in_the_audit_trail_with_who_what_and_from_what_to_what(customer: Customer):
    made, _ = await customer.database.write(
        accounts.create_api_key, "first", OLD, display_name="laptop", actor="somebody"
    )
    await change(customer, made.key_id, display_name="desktop", default_model="small")
    await change(customer, made.key_id, display_name="desktop")  # changes nothing
    assert await events(customer.database, "first") == [
        ("tester", "UpdateApiKey", made.resource_name),
        ("somebody", "CreateApiKey", made.resource_name),
        ("", "CreateApiKey", f"accounts/first/keys/{customer.key_id}"),
        ("", "CreateAccount", "accounts/first"),
    ]
    page = await customer.database.read(audit.list_events, "first", page_size=1)
    (event,) = page.events
    assert [(each.field, each.old_value, each.new_value) for each in event.changes] == [
        ("display_name", "laptop", "desktop"),
        ("default_model", "", "small"),
    ]
    rest = await customer.database.read(audit.list_events, "first", page_token=page.next_page_token)
    assert [each.sequence for each in rest.events] == sorted((each.sequence for each in rest.events), reverse=True)
    assert len(rest.events) == 3
    with pytest.raises(FieldInvalidError):
        await customer.database.read(audit.list_events, "first", page_token="x")


async def test_the_trail_of_an_account_is_its_own(customer: Customer):
    await new_customer(customer.database, "second")
    assert {resource.split("/")[1] for _, _, resource in await events(customer.database, "second")} == {"second"}
    assert {resource.split("/")[1] for _, _, resource in await events(customer.database)} == {"first", "second"}


@pytest.mark.rule("A4")
async def test_the_database_refuses_to_change_or_remove_what_is_in_the_trail(customer: Customer):
    before = await events(customer.database)
    for statement in (update(audit_events).values(actor="nobody"), delete(audit_events)):
        with pytest.raises(DBAPIError, match="append-only"):
            await customer.database.write(lambda tx, statement=statement: tx.connection.execute(statement).rowcount)
    if customer.database.__class__.__name__ == "PostgresDatabase":
        with pytest.raises(DBAPIError, match="append-only"):
            await customer.database.write(lambda tx: tx.connection.execute(text("TRUNCATE audit_events")).rowcount)
    assert await events(customer.database) == before


async def test_no_secret_and_no_hash_is_in_the_trail(customer: Customer):
    made, secret = await customer.database.write(accounts.create_api_key, "first", OLD)
    _, again = await customer.database.write(api_keys.rotate_api_key, made, OLD, overlap_ms=1_000, actor="tester")
    rows = repr(await customer.database.read(lambda tx: tx.connection.execute(select(audit_events)).all()))
    for value in (secret, again):
        assert value not in rows
        assert hash_api_key(OLD, value).hex() not in rows


@pytest.mark.rule("A2")
@pytest.mark.parametrize("who", ["account", "key"])
async def test_no_more_sessions_open_than_the_limit_allows(customer: Customer, who: str):
    if who == "key":
        await change(customer, customer.key_id, limits=UsageLimits(concurrent_sessions=1))
    else:
        await customer.database.write(
            lambda tx: accounts.save_account(
                tx,
                accounts.get_account(tx, "first"),
                dataclasses.replace(accounts.get_account(tx, "first"), limits=UsageLimits(concurrent_sessions=1)),
                actor="tester",
            )
        )
    await customer.start()
    await customer.start(holder="another")  # joins the open one
    with pytest.raises(LimitReachedError, match=f"The {who} may have 1 open sessions") as refused:
        await customer.start(model="large")
    assert refused.value.retry_after_seconds
    await customer.stop(all_holders=True)
    await customer.start(model="large")
