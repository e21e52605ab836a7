"""A repeated request is answered as the first one was, and does nothing twice."""

import asyncio
import hashlib
from collections.abc import Iterable

import pytest
from sqlalchemy import func, select, update

from tests.contract.store.conftest import Customer, new_customer
from tidemill_services.domain.errors import FieldInvalidError, RequestIdReusedError
from tidemill_services.expired_answers import ExpiredAnswers
from tidemill_services.store import accounts
from tidemill_services.store.database import Transaction
from tidemill_services.store.requests import (
    KEPT_MS,
    NUM_FORGOTTEN_AT_ONCE,
    RequestKey,
    find_response,
    save_response,
)
from tidemill_services.store.tables import accounts as accounts_table
from tidemill_services.store.tables import requests


def key(request_id: str = "r1", *, account_id: str = "first", body: bytes = b"body", rpc: str = "Start") -> RequestKey:
    return RequestKey(account_id, rpc, request_id, hashlib.sha256(body).digest())


def create_once(tx: Transaction, request: RequestKey) -> bytes:
    """Make one account for a request and answer with its id."""
    response = find_response(tx, request)
    if response is None:
        count = tx.connection.execute(select(func.count()).select_from(accounts_table)).scalar_one()
        response = accounts.create_account(tx, f"made-{count}", "").account_id.encode()
        save_response(tx, request, response)
    return response


def save_all(tx: Transaction, keys: Iterable[RequestKey]) -> None:
    for each in keys:
        save_response(tx, each, b"done")


def age(tx: Transaction, by_ms: int) -> None:
    tx.connection.execute(update(requests).values(create_ms=requests.c.create_ms - by_ms))


@pytest.mark.rule("A13")
async def test_a_hundred_repeats_at_once_are_done_once(customer: Customer):
    answers = await asyncio.gather(*(customer.database.write(create_once, key()) for _ in range(100)))
    assert set(answers) == {b"made-1"}


@pytest.mark.rule("A13")
async def test_another_body_under_the_same_id_is_refused(customer: Customer):
    await customer.database.write(create_once, key())
    with pytest.raises(RequestIdReusedError) as refusal:
        await customer.database.write(create_once, key(body=b"other"))
    assert refusal.value.field == "request_id"


@pytest.mark.rule("A13")
async def test_an_id_counts_within_its_account_and_rpc(customer: Customer):
    await new_customer(customer.database, "second")
    answers = [
        await customer.database.write(create_once, request)
        for request in (key(), key(account_id="second"), key(rpc="Stop"), key("r2"))
    ]
    assert len(set(answers)) == 4


@pytest.mark.rule("A13")
async def test_an_answer_is_kept_for_24_hours(customer: Customer):
    first = await customer.database.write(create_once, key())
    await customer.database.write(age, KEPT_MS - 60_000)
    assert await customer.database.write(create_once, key()) == first
    await customer.database.write(age, 60_000)
    assert await customer.database.write(create_once, key(body=b"other")) != first


@pytest.mark.rule("A13")
async def test_an_answer_is_saved_with_its_effect_or_not_at_all(customer: Customer):
    def fail_at_the_end(tx: Transaction) -> None:
        create_once(tx, key())
        raise LookupError

    with pytest.raises(LookupError):
        await customer.database.write(fail_at_the_end)
    assert await customer.database.read(find_response, key()) is None
    assert await customer.database.read(accounts.find_account, "made-1") is None


async def test_what_is_kept_is_not_replaced_by_another_answer(customer: Customer):
    first = await customer.database.write(create_once, key())
    assert not await customer.database.write(save_response, key(), b"another")
    assert await customer.database.read(find_response, key()) == first
    await customer.database.write(age, KEPT_MS)
    assert await customer.database.write(save_response, key(), b"another")
    assert await customer.database.read(find_response, key()) == b"another"


async def test_expired_answers_are_forgotten(customer: Customer):
    old, new = ([key(f"{when}-{number}") for number in range(NUM_FORGOTTEN_AT_ONCE + 1)] for when in ("old", "new"))
    await customer.database.write(save_all, old)
    await customer.database.write(age, KEPT_MS)
    await customer.database.write(save_all, new)
    count = select(func.count()).select_from(requests)
    forgetting = asyncio.create_task(ExpiredAnswers(customer.database).run())
    async with asyncio.timeout(60):
        async for _ in customer.database.changes("nothing", poll_seconds=0.01):
            if await customer.database.read(lambda tx: tx.connection.execute(count).scalar_one()) == len(new):
                break
    forgetting.cancel()
    assert await customer.database.read(find_response, new[0]) == b"done"


@pytest.mark.parametrize("request_id", ["", "r" * 129, "a\x00b"])
def test_an_id_that_cannot_be_kept_is_refused(request_id: str):
    with pytest.raises(FieldInvalidError, match="128 printable") as refusal:
        key(request_id)
    assert refusal.value.field == "request_id"
