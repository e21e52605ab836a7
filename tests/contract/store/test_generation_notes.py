"""A generation with a request id is noted once, whoever asks."""

import asyncio

import pytest

from tests.contract.store.conftest import Customer
from tests.contract.store.test_requests import age, key
from tidemill_services.domain.errors import GenerationEndedError, GenerationLostError, RequestIdReusedError
from tidemill_services.domain.generation import Usage
from tidemill_services.store.generation_notes import check_unknown, note_begin, note_end
from tidemill_services.store.requests import KEPT_MS, forget_response

USAGE = Usage(prompt_tokens=3, completion_tokens=40, queue_seconds=0.125, total_seconds=2.5)


async def test_of_many_that_begin_at_once_one_does(customer: Customer):
    results = await asyncio.gather(
        *(customer.database.write(note_begin, key()) for _ in range(20)), return_exceptions=True
    )
    assert results.count(None) == 1
    assert {type(result) for result in results if result is not None} == {GenerationLostError}


async def test_its_usage_is_told_for_24_hours(customer: Customer):
    await customer.database.write(note_begin, key())
    await customer.database.write(note_end, key(), USAGE)
    for _ in range(2):
        with pytest.raises(GenerationEndedError) as refused:
            await customer.database.read(check_unknown, key())
        assert refused.value.usage == USAGE
        with pytest.raises(RequestIdReusedError):
            await customer.database.read(check_unknown, key(body=b"other"))
    await customer.database.write(age, KEPT_MS)
    await customer.database.write(note_begin, key(body=b"other"))


async def test_one_that_showed_nothing_is_forgotten(customer: Customer):
    await customer.database.write(note_begin, key())
    await customer.database.write(forget_response, key())
    await customer.database.read(check_unknown, key())
