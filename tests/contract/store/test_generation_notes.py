"""A generation with a request id is noted once, whoever asks."""

import asyncio

import pytest

from tests.contract.store.conftest import Customer
from tests.contract.store.test_requests import age, key
from tidemill_services.domain.errors import (
    GenerationEndedError,
    GenerationLostError,
    RequestIdReusedError,
    TidemillError,
)
from tidemill_services.domain.generation import Usage
from tidemill_services.store.generation_notes import check_unknown, write_notes
from tidemill_services.store.requests import KEPT_MS, forget_response

USAGE = Usage(prompt_tokens=3, completion_tokens=40, queue_seconds=0.125, total_seconds=2.5)


async def begin(customer: Customer, **changes: bytes) -> TidemillError | None:
    """Note that one begins; why it must not."""
    (refusal,) = await customer.database.write(write_notes, [key(**changes)], [])
    return refusal


async def test_of_many_that_begin_at_once_one_does(customer: Customer):
    refusals = await asyncio.gather(*(begin(customer) for _ in range(20)))
    assert refusals.count(None) == 1
    assert {type(refusal) for refusal in refusals if refusal is not None} == {GenerationLostError}
    many = [key("other"), key("r1"), key("other")]
    assert [type(refusal) for refusal in await customer.database.write(write_notes, many, [])] == [
        type(None),
        GenerationLostError,
        GenerationLostError,
    ]


async def test_its_usage_is_told_for_24_hours(customer: Customer):
    assert await begin(customer) is None
    await customer.database.write(write_notes, [key("another")], [(key(), USAGE)])
    for _ in range(2):
        with pytest.raises(GenerationEndedError) as refused:
            await customer.database.read(check_unknown, key())
        assert refused.value.usage == USAGE
        with pytest.raises(RequestIdReusedError):
            await customer.database.read(check_unknown, key(body=b"other"))
        assert isinstance(await begin(customer), GenerationEndedError)
        assert isinstance(await begin(customer, body=b"other"), RequestIdReusedError)
    await customer.database.write(age, KEPT_MS)
    assert await begin(customer, body=b"other") is None


async def test_one_that_showed_nothing_is_forgotten(customer: Customer):
    assert await begin(customer) is None
    await customer.database.write(forget_response, key())
    await customer.database.read(check_unknown, key())
