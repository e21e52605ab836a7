"""Answers that their tokens pay, in one process, on a real store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.contract.store.books import assert_proven, seal
from tests.contract.store.conftest import add_models
from tests.funds import grant
from tidemill_services.domain.api_key import Role
from tidemill_services.domain.errors import InsufficientCreditsError
from tidemill_services.domain.ledger import EntryKind
from tidemill_services.domain.price import Price
from tidemill_services.domain.token_billing import token_cost
from tidemill_services.identity import Caller
from tidemill_services.store import accounts, ledger, prices
from tidemill_services.store.database import Database
from tidemill_services.token_funds import TokenFunds

PRICE = Price(0, "small", "", 1, 1_000_000_000, 2_000_000_000, 0)
DEAREST = token_cost(PRICE, 10, 20)


@pytest.fixture
async def price(database: Database) -> Price:
    await database.write(add_models, "small")
    return await database.write(prices.enter_price, PRICE)


async def caller_with(database: Database, microcredits: int) -> Caller:
    await database.write(accounts.create_account, "a", "A")
    if microcredits:
        await database.write(grant, "a", microcredits)
    api_key, _ = await database.write(accounts.create_api_key, "a", b"secret")
    return Caller("a", api_key.key_id, Role.USER, None, pays_per_token=True)


@asynccontextmanager
async def running(database: Database, name: str) -> AsyncIterator[TokenFunds]:
    funds = TokenFunds(database, name)
    task = asyncio.create_task(funds.run())
    try:
        yield funds
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await funds.close()


@pytest.mark.rule("T4")
async def test_fifty_answers_at_once_in_two_processes_against_credits_for_five(
    database: Database, price: Price
) -> None:
    caller = await caller_with(database, 5 * DEAREST)
    async with running(database, "one") as one, running(database, "two") as two:
        found = await asyncio.gather(
            *((one, two)[number % 2].reserve(caller, price, 10, 20) for number in range(50)), return_exceptions=True
        )
        reserved = [each for each in found if not isinstance(each, BaseException)]
        assert all(isinstance(each, InsufficientCreditsError) for each in found if isinstance(each, BaseException))
        assert 4 <= len(reserved) <= 5  # a part of one may lie in the other's slice
        for each in reserved:
            each.charge(10, 20)
    balance = await database.read(ledger.balance_of, "a")
    assert balance.balance_microcredits == (5 - len(reserved)) * DEAREST
    assert balance.held_microcredits == 0
    await seal(database)
    await assert_proven(database)


@pytest.mark.rule("T2")
async def test_an_answer_is_charged_once_for_what_it_used_and_the_rest_is_free_again(
    database: Database, price: Price
) -> None:
    caller = await caller_with(database, 10 * DEAREST)
    async with running(database, "one") as funds:
        used = await funds.reserve(caller, price, 10, 20)
        of_no_use = await funds.reserve(caller, price, 10, 20)
        used.charge(10, 3)
        used.charge(10, 20)
        of_no_use.release()
    entries = (await database.read(ledger.list_entries, "a")).entries
    charges = [entry.posting for entry in entries if entry.posting.kind is EntryKind.TOKEN_CHARGE]
    assert [(each.amount_microcredits, each.used.completion_tokens) for each in charges] == [
        (-token_cost(price, 10, 3), 3)
    ]
    assert charges[0].subject == f"keys/{caller.key_id}"
    assert entries[-1].held_microcredits == 0


async def test_an_account_without_credits_is_told_what_is_missing_and_may_go_on_when_it_has_some(
    database: Database, price: Price
) -> None:
    caller = await caller_with(database, 0)
    async with running(database, "one") as funds:
        with pytest.raises(InsufficientCreditsError, match=r"0\.05 credits"):
            await funds.reserve(caller, price, 10, 20)
        await database.write(grant, "a", DEAREST)
        (await funds.reserve(caller, price, 10, 20)).charge(10, 20)
    assert (await database.read(ledger.balance_of, "a")).balance_microcredits == 0


async def test_many_answers_need_few_transactions(database: Database, price: Price) -> None:
    caller = await caller_with(database, 1_000 * DEAREST)
    async with running(database, "one") as funds:
        for _ in range(100):
            (await funds.reserve(caller, price, 10, 20)).charge(10, 20)
    entries = (await database.read(ledger.list_entries, "a", page_size=1_000)).entries
    assert sum(entry.posting.kind is EntryKind.TOKEN_CHARGE for entry in entries) == 100
    assert len(entries) < 100 + 60  # a hold for each eight of them, at the most, and what is given back
