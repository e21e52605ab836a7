"""Watches come and go without leaving anything behind."""

import asyncio
import gc

import pytest

from tidemill_services.store.watchers import MAX_TOPICS, Watchers


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


async def test_a_watch_that_rests_looks_again_after_its_poll_only_while_commits_may_go_unheard():
    watchers = Watchers()
    watch = watchers.watch("t", 0.01)
    watch.rest_seconds = 3_600.0
    await anext(watch)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(watch), 0.2)
    watchers.hear_all(hears=False)
    async with asyncio.timeout(60):
        for _ in range(3):
            await anext(watch)
    watchers.hear_all(hears=True)
    await anext(watch)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(watch), 0.2)
    watchers.wake(["t"])
    await anext(watch)


def test_a_topic_changed_since_the_moments_before_its_last_wake() -> None:
    watchers = Watchers()
    before = watchers.moment
    watchers.wake(["t"])
    after = watchers.moment
    watchers.wake(["other"])
    assert watchers.changed_since("t", before)
    assert not watchers.changed_since("t", after)
    assert not watchers.changed_since("never", before)


def test_wakes_that_may_have_been_missed_change_every_topic() -> None:
    watchers = Watchers()
    before = watchers.moment
    watchers.wake_all()
    assert watchers.changed_since("never", before)
    assert not watchers.changed_since("never", watchers.moment)


def test_of_many_topics_the_old_changes_are_forgotten_by_calling_all_changed() -> None:
    watchers = Watchers()
    before = watchers.moment
    watchers.wake(f"t{number}" for number in range(MAX_TOPICS + 1))
    assert watchers.changed_since("never", before)
    assert not watchers.changed_since("t1", watchers.moment)
