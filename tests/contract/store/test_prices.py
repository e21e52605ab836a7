"""Prices in revisions, on both databases: what has begun keeps the price at which it began."""

import pytest

from tests.contract.store.books import assert_proven, at
from tests.contract.store.conftest import Customer
from tidemill_services.domain.errors import ModelNotFoundError
from tidemill_services.domain.ledger import EntryKind
from tidemill_services.domain.price import Price
from tidemill_services.store import ledger, prices, sessions
from tidemill_services.store.database import Database, Transaction


def price(
    microcredits: int, *, account_id: str = "", actor: str = "accounts/a/keys/k", withdrawn: bool = False
) -> Price:
    return Price(0, "small", account_id, microcredits, 2, 3, create_ms=0, actor=actor, withdrawn=withdrawn)


async def price_of(database: Database, account_id: str) -> int:
    found = await database.read(prices.price_of, "small", account_id)
    return found.session_microcredits_per_second


async def test_an_open_session_keeps_its_price_and_the_next_one_has_the_new(customer: Customer):
    async def start() -> str:
        def start_at_the_price_of_now(tx: Transaction) -> str:
            found = prices.price_of(tx, "small", customer.account_id)
            session, _ = sessions.start_session(
                tx,
                account_id=customer.account_id,
                key_id=customer.key_id,
                model="small",
                holder="h",
                price_microcredits_per_second=found.session_microcredits_per_second,
                price_revision=found.revision,
            )
            return session.session_id

        return await customer.database.write(start_at_the_price_of_now)

    await customer.database.write(prices.set_price, price(10))
    session_id = await start()
    await customer.database.write(prices.set_price, price(99))
    assert await start() == session_id
    begin_ms = (await customer.get(session_id)).create_ms
    await at(customer.database, begin_ms, sessions.model_became_ready, "small")
    of_key = {"account_id": customer.account_id, "key_id": customer.key_id, "model": "small", "all_holders": True}
    await at(customer.database, begin_ms + 5_000, sessions.stop_session, **of_key)
    charges = (await customer.database.read(ledger.list_entries, "first", kinds=[EntryKind.SESSION_CHARGE])).entries
    assert sum(each.posting.amount_microcredits for each in charges) == -50
    assert {each.posting.used.price_revision for each in charges} == {1}
    after = await customer.get(await start())
    assert (after.price_microcredits_per_second, after.price_revision) == (99, 2)
    await assert_proven(customer.database)


@pytest.mark.rule("A14")
async def test_an_accounts_own_price_goes_before_the_platforms_until_it_is_withdrawn(customer: Customer):
    database = customer.database
    with pytest.raises(ModelNotFoundError):
        await price_of(database, "first")
    await database.write(prices.set_price, price(10))
    await database.write(prices.set_price, price(3, account_id="first"))
    await database.write(prices.set_price, price(20))
    assert (await price_of(database, "first"), await price_of(database, "other")) == (3, 20)
    await database.write(prices.set_price, price(0, account_id="first", withdrawn=True))
    assert (await price_of(database, "first"), await price_of(database, "other")) == (20, 20)
    history = await database.read(prices.list_prices, "first", include_history=True)
    assert [each.revision for each in history.prices] == [4, 3, 2, 1]
    assert [each.revision for each in (await database.read(prices.list_prices, "first")).prices] == [3]


async def test_what_a_package_asks_holds_when_it_changed_and_never_undoes_what_an_operator_set(customer: Customer):
    database = customer.database
    await database.write(prices.enter_package_price, price(10, actor=""))
    await database.write(prices.set_price, price(50))
    await database.write(prices.enter_package_price, price(10, actor=""))  # the next start of the server
    assert await price_of(database, "first") == 50
    await database.write(prices.enter_package_price, price(11, actor=""))  # a new version of the package
    assert await price_of(database, "first") == 11
