"""Waits for slots, and what ran, as processes tell of them: on both databases, at times that the test sets."""

from typing import Any

import pytest

from tests.contract.store.books import PRICE
from tests.contract.store.conftest import Customer
from tests.contract.store.test_session_activity import Story, begin_at_noon
from tidemill_services.domain.ledger import LedgerEntry
from tidemill_services.domain.session import EndReason, bill
from tidemill_services.domain.session_limits import GivenLimits
from tidemill_services.domain.session_use import Use
from tidemill_services.store import hosts, ledger, session_activity, sessions
from tidemill_services.store.session_activity import ACTIVITY_LEASE_MS, CountedNews

MINUTE_MS = 60_000


@pytest.fixture
async def story(customer: Customer) -> Story:
    return await begin_at_noon(customer)


async def tell(story: Story, after_ms: int, process: str = "host.1", *, number: int = 0, **news: Any) -> None:
    """Tell of waits by when they were, after the clock's start: `since_ms` of one that lasts, `waits` that ended."""
    if (since_ms := news.pop("since_ms", None)) is not None:
        news["waiting_ago_ms"] = {story.session_id: after_ms - since_ms}
    waits, use = news.pop("waits", ()), news.pop("use", None)
    if waits or use:
        agos = [(after_ms - from_ms, after_ms - until_ms) for from_ms, until_ms in waits]
        news["counted"] = CountedNews(
            number, {story.session_id: agos} if waits else {}, {story.session_id: use} if use else {}
        )
    await story.tell(after_ms, process, runs=news.pop("runs", True), **news)


async def billed_ms(story: Story, after_ms: int) -> int:
    return bill(await story.get(), story.start_ms + after_ms).billed_ms


async def rows_of(story: Story) -> list[LedgerEntry]:
    page = await story.customer.database.read(
        ledger.list_entries, "first", subject=f"sessions/{story.session_id}", page_size=1_000
    )
    return [entry for entry in page.entries if entry.posting.kind.value == "SESSION_CHARGE"]


async def stop(story: Story, after_ms: int) -> None:
    await story.at(after_ms, sessions.stop_sessions_of_model, "small", EndReason.STOPPED)


@pytest.mark.rule("S5")
async def test_the_clock_stands_from_when_a_wait_was_too_long_to_its_end(story: Story):
    await tell(story, 5_000, since_ms=4_900)
    assert await billed_ms(story, 9_000) == 4_900
    await tell(story, 8_200, number=1, waits=[(4_900, 8_000)])
    assert await billed_ms(story, 9_000) == 5_900
    await stop(story, 10_000)
    assert (await story.get()).billed_ms == 6_900
    assert sum(row.posting.used.billed_seconds for row in await rows_of(story)) == 7


@pytest.mark.rule("S5")
async def test_of_several_processes_the_last_one_whose_wait_ends_lets_the_clock_run(story: Story):
    await tell(story, 5_000, "host.1", since_ms=5_000)
    await tell(story, 7_000, "other.1", since_ms=6_000)
    await tell(story, 8_000, "host.1", number=1, waits=[(5_000, 8_000)])
    assert await billed_ms(story, 9_000) == 5_000
    await tell(story, 10_000, "other.1", number=1, waits=[(6_000, 9_500)])
    assert await billed_ms(story, 10_000) == 5_500


async def test_a_process_that_dies_while_it_waits_holds_the_clock_until_nobody_can_know_of_it(story: Story):
    await tell(story, 5_000, since_ms=5_000)
    await story.look(5_000 + ACTIVITY_LEASE_MS - 1)
    assert await billed_ms(story, 60_000) == 5_000
    assert await story.at(5_000, session_activity.time_to_look_ms) <= ACTIVITY_LEASE_MS
    await story.look(5_000 + ACTIVITY_LEASE_MS + 700)
    assert await billed_ms(story, 5_000 + ACTIVITY_LEASE_MS + 1_000) == 6_000


async def test_the_next_life_of_a_host_ends_the_waits_of_the_last_one(story: Story):
    await tell(story, 5_000, since_ms=5_000)
    await story.at(6_000, hosts.remove_host, "host")
    assert await billed_ms(story, 7_000) == 6_000


@pytest.mark.rule("S5")
async def test_a_model_that_becomes_ready_while_a_generation_waits_starts_no_clock(customer: Customer):
    session, _ = await customer.start()
    story = Story(customer, session)
    story.start_ms = session.create_ms
    await tell(story, 2_000, since_ms=1_000)
    await story.at(3_000, sessions.model_became_ready, "small")
    assert await billed_ms(story, 5_000) == 0
    await tell(story, 6_000, number=1, waits=[(1_000, 5_500)])
    assert await billed_ms(story, 6_000) == 500


async def test_the_clock_stays_where_it_was_when_the_model_is_lost_and_comes_back_during_a_wait(story: Story):
    await tell(story, 5_000, since_ms=5_000)
    await story.at(6_000, sessions.model_was_lost, "small")
    await story.at(7_000, sessions.model_became_ready, "small")
    assert await billed_ms(story, 9_000) == 5_000
    await tell(story, 9_000, number=1, waits=[(5_000, 8_000)])
    await story.at(10_000, sessions.model_was_lost, "small")
    await tell(story, 11_000, since_ms=10_500)
    await tell(story, 13_000, number=2, waits=[(10_500, 12_000)])
    assert await billed_ms(story, 20_000) == 7_000


@pytest.mark.rule("S5")
async def test_a_stop_during_a_wait_bills_to_its_begin_and_nothing_later_changes_that(story: Story):
    await tell(story, 5_000, since_ms=5_000)
    await stop(story, 9_000)
    stopped = await story.get()
    assert (stopped.billed_ms, stopped.end_ms) == (5_000, story.start_ms + 9_000)
    await tell(story, 9_500, since_ms=2_000)
    await tell(story, 10_000, number=1, waits=[(1_000, 9_900)])
    assert bill(await story.get(), story.start_ms + 20_000).billed_ms == 5_000


async def test_a_wait_that_is_told_minutes_late_is_taken_off_all_the_same(story: Story):
    await tell(story, 100_000, number=1, waits=[(3_000, 40_000)])
    assert await billed_ms(story, 100_000) == 63_000
    await story.look(130_000)
    await stop(story, 140_000)
    rows = await rows_of(story)
    assert sum(row.posting.used.billed_seconds for row in rows) == 103
    assert -sum(row.posting.amount_microcredits for row in rows) == 103 * PRICE


async def test_what_money_is_left_lasts_longer_by_what_was_waited(customer: Customer):
    story = await begin_at_noon(customer, limits=GivenLimits(max_spend_microcredits=10 * PRICE))
    await tell(story, 5_000, since_ms=5_000)
    await tell(story, 29_000, since_ms=5_000)
    await story.look(30_000)
    assert (await story.get()).is_open
    await tell(story, 30_000, number=1, waits=[(5_000, 29_000)])
    await story.look(33_999)
    assert (await story.get()).is_open
    await story.look(34_000)
    ended = await story.get()
    assert (ended.end_reason, ended.billed_ms) == (EndReason.MAX_SPEND, 10_000)


@pytest.mark.rule("S11")
async def test_what_ran_stands_in_the_next_row_and_in_the_last_one(story: Story):
    await tell(story, 10_000, number=1, use=Use(2, 30, 400))
    await tell(story, 20_000, "other.1", number=1, use=Use(1, 5, 6))
    await story.look(2 * MINUTE_MS)
    (row,) = await rows_of(story)
    used = row.posting.used
    assert (used.num_generations, used.prompt_tokens, used.completion_tokens) == (3, 35, 406)
    await tell(story, 2 * MINUTE_MS, number=2, use=Use(1, 1, 1))
    await stop(story, 130_000)
    assert [row.posting.used.num_generations for row in await rows_of(story)] == [3, 1]


async def test_news_that_is_told_again_under_its_number_counts_once(story: Story):
    for after_ms in (10_000, 11_000, 12_000):
        await tell(story, after_ms, number=1, use=Use(1, 10, 20), waits=[(2_000, 3_000)])
    await tell(story, 12_000, "other.1", number=1, use=Use(1, 10, 20))
    await tell(story, 13_000, number=2, use=Use(1, 1, 1))
    await tell(story, 14_000, number=1, use=Use(1, 10, 20))
    assert (await story.get()).use == Use(3, 21, 41)
    assert await billed_ms(story, 14_000) == 13_000
    await tell(story, 15_000, "host.2", number=1, use=Use(1, 10, 20))  # the host's next life counts from the beginning
    assert (await story.get()).use.num_generations == 4


@pytest.mark.rule("S4")
async def test_what_ran_in_the_drain_is_in_a_row_that_costs_nothing(story: Story):
    await stop(story, 10_000)
    await tell(story, 12_000, number=1, use=Use(1, 10, 20))
    await story.at(13_000, sessions.finish_session, story.session_id)
    await tell(story, 14_000, number=2, use=Use(1, 1, 2))
    rows = [row.posting for row in await rows_of(story)]
    assert [row.amount_microcredits for row in rows] == [-10 * PRICE, 0, 0]
    assert [row.used.num_generations for row in rows] == [0, 1, 1]
    assert {row.used.until_ms for row in rows[1:]} == {story.start_ms + 10_000}
