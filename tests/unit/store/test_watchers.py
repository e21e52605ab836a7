"""Watches come and go without leaving anything behind."""

import asyncio
import gc

import pytest

from tidemill_services.store.watchers import Watchers


async def test_a_watch_that_is_dropped_or_closed_is_forgotten():
    watchers = Watchers()
    dropped, closed = watchers.watch("t", 60), watchers.watch("t", 60)
    await anext(dropped)
    await closed.aclose()
    del dropped
    gc.collect()
    assert watchers._wakes == {}
    await closed.aclose()


async def test_many_wakes_in_one_turn_are_one():
    watchers = Watchers()
    watch = watchers.watch("t", 60)
    await anext(watch)
    for _ in range(10):
        watchers.wake(["t"])
    await anext(watch)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(watch), 0)


async def test_a_closed_registry_ends_watches_that_wait_and_those_that_come_later():
    watchers = Watchers()
    waiting = watchers.watch("t", 60)
    await anext(waiting)
    watchers.close()
    for watch in (waiting, watchers.watch("t", 60)):
        with pytest.raises(StopAsyncIteration):
            await anext(watch)
