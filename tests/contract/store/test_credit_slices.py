"""Credits held ahead by several processes, on a real store: never more than there is, and charged once."""

import random
from dataclasses import replace

import pytest

from tests.contract.store.books import assert_proven, at, seal
from tests.contract.store.conftest import Customer, new_customer
from tests.funds import PLENTY, grant
from tests.scale import count
from tidemill_services.domain.ledger import Contra, EntryKind, Posting
from tidemill_services.domain.price import Price
from tidemill_services.domain.token_billing import SLICE_LEASE_MS, Settlement, TokenCharge, token_cost
from tidemill_services.store import credit_slices, ledger, prices
from tidemill_services.store.database import Database, Transaction

PRICE = Price(0, "small", "", 1, 1_000_000_000, 2_000_000_000, 0)


@pytest.fixture
async def price(customer: Customer) -> Price:
    return await customer.database.write(prices.enter_price, PRICE)


def charge_of(price: Price, key_id: str, prompt: int = 10, completion: int = 20) -> TokenCharge:
    cost = token_cost(price, prompt, completion)
    return TokenCharge(key_id, price.model, price.revision, cost, prompt, completion)


def asking(account_id: str, number: int = 0, *charges: TokenCharge, needed: int = 0, back: bool = False) -> Settlement:
    return Settlement(account_id, number, charges, needed, 0, back)


@pytest.mark.rule("T4")
async def test_a_settlement_whose_answer_was_lost_is_repeated_and_charges_once(
    customer: Customer, price: Price
) -> None:
    database, account = customer.database, customer.account_id
    charge = charge_of(price, customer.key_id)
    first = asking(account, 1, charge, charge, needed=100_000)
    held = await database.write(credit_slices.settle, "p", [first])
    assert await database.write(credit_slices.settle, "p", [first]) == held == [100_000]
    balance = await database.read(ledger.balance_of, account)
    assert balance.balance_microcredits == PLENTY - 2 * charge.cost_microcredits
    assert await database.write(credit_slices.settle, "p", [asking(account, 2, charge, back=True)]) == [0]
    assert (await database.read(ledger.balance_of, account)).held_microcredits == 0
    await seal(database)
    await assert_proven(database)


@pytest.mark.rule("T5")
async def test_the_slice_of_a_process_that_shows_no_life_is_given_back_and_its_late_charges_cost_what_is_there(
    customer: Customer, price: Price
) -> None:
    database, account = customer.database, customer.account_id
    now_ms = await database.read(lambda tx: tx.now_ms)
    await database.write(credit_slices.settle, "p", [asking(account, needed=500_000)])
    assert not await database.read(credit_slices.has_lapsed)
    later_ms = now_ms + SLICE_LEASE_MS + 10_000
    await at(database, later_ms, credit_slices.return_lapsed)
    assert (await database.read(ledger.balance_of, account)).held_microcredits == 0
    charge = charge_of(price, customer.key_id)
    assert await at(database, later_ms, credit_slices.settle, "p", [asking(account, 1, charge)]) == [0]
    assert (await database.read(ledger.balance_of, account)).balance_microcredits == PLENTY - charge.cost_microcredits
    await seal(database)
    await assert_proven(database)


@pytest.mark.rule("T4")
async def test_processes_that_hold_and_charge_at_random_never_take_more_than_there_is(
    database: Database, customer: Customer, price: Price
) -> None:
    chance = random.Random(7)
    poor = await new_customer(database, "poor")
    available = (await database.read(ledger.balance_of, "poor")).available_microcredits
    start = 2_000_000
    await database.write(_take, "poor", available - start)
    held, numbers, granted, paid = {"p": 0, "q": 0}, {"p": 0, "q": 0}, start, 0
    for _ in range(count(60, full=2_000)):
        process = chance.choice("pq")
        charges = []
        left = held[process]
        while chance.random() < 0.5 and left > 0:
            charge = charge_of(price, poor.key_id, chance.randrange(1, 60), chance.randrange(0, 60))
            if charge.cost_microcredits <= left:
                charges.append(charge)
                left -= charge.cost_microcredits
        numbers[process] += bool(charges)
        asked = replace(
            asking("poor", numbers[process] if charges else 0, *charges, needed=chance.randrange(0, 900_000)),
            ahead_microcredits=chance.randrange(0, 500_000),
            gives_back=chance.random() < 0.5,
        )
        [held[process]] = await database.write(credit_slices.settle, process, [asked])
        paid += sum(charge.cost_microcredits for charge in charges)
        if chance.random() < 0.1:
            granted += 400_000
            await database.write(grant, "poor", 400_000)
        balance = await database.read(ledger.balance_of, "poor")
        assert balance.balance_microcredits == granted - paid
        assert balance.held_microcredits == sum(held.values()) <= balance.balance_microcredits
    assert paid
    await seal(database)
    await assert_proven(database)


def _take(tx: Transaction, account_id: str, microcredits: int) -> None:
    """Leave an account with less."""
    ledger.post(tx, account_id, [Posting(EntryKind.CORRECTION, Contra.CORRECTIONS, -microcredits, reason="for a test")])
