"""What ends sessions by itself, on both databases: units of work at times that the test sets."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.store.books import PRICE, at
from tests.contract.store.conftest import Customer, new_customer
from tidemill_services.domain.errors import (
    FieldInvalidError,
    InsufficientCreditsError,
    SessionEndedError,
    SessionNotFoundError,
)
from tidemill_services.domain.session import EndReason, Liveness, Session, SessionState, bill
from tidemill_services.domain.session_limits import GivenLimits
from tidemill_services.store import accounts, hosts, session_activity, session_funds, session_groups, sessions
from tidemill_services.store.database import Transaction
from tidemill_services.store.session_activity import ACTIVITY_LEASE_MS, News

MINUTE_MS = 60_000
IDLE_MS = 15 * MINUTE_MS


class Story:
    """One session, and what happens to it at times after its clock first ran."""

    def __init__(self, customer: Customer, session: Session) -> None:
        self.customer = customer
        self.session_id = session.session_id
        self.start_ms = session.start_ms or 0

    async def at(self, after_ms: int, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await at(self.customer.database, self.start_ms + after_ms, unit, *args, **kwargs)

    async def tell(self, after_ms: int, process: str = "host.1", *, runs: bool = False, **news: Any) -> None:
        running = {self.session_id} if runs else set()
        await self.at(after_ms, session_activity.tell_activity, process, News(running, **news))

    async def look(self, after_ms: int, *, holders_are_heard: bool = True) -> int | None:
        return await self.at(after_ms, session_activity.look_at_sessions, holders_are_heard=holders_are_heard)

    async def get(self) -> Session:
        return await self.customer.get(self.session_id)


async def begin(customer: Customer, **wanted: Any) -> Story:
    """A session whose clock runs."""
    session, _ = await customer.start(**wanted)
    await customer.database.write(sessions.model_became_ready, "small")
    return Story(customer, await customer.get(session.session_id))


async def begin_at_noon(customer: Customer, **wanted: Any) -> Story:
    """A session whose clock runs from noon on, so that no midnight parts its rows."""
    day_ms = 86_400_000
    noon_ms = (await customer.database.read(lambda tx: tx.now_ms) // day_ms + 1) * day_ms + day_ms // 2
    asked = {"model": "small", "holder": "h", "price_microcredits_per_second": PRICE} | wanted
    of_key = {"account_id": customer.account_id, "key_id": customer.key_id}
    session, _ = await at(customer.database, noon_ms, sessions.start_session, **of_key, **asked)
    await at(customer.database, noon_ms, sessions.model_became_ready, asked["model"])
    return Story(customer, await customer.get(session.session_id))


@pytest.fixture
async def story(customer: Customer) -> Story:
    return await begin(customer)


@pytest.mark.rule("S16")
async def test_a_session_of_which_nothing_runs_ends_at_its_idle_timeout(story: Story):
    await story.look(IDLE_MS - 1)
    assert (await story.get()).is_open
    await story.look(IDLE_MS + 5_000)
    ended = await story.get()
    assert (ended.state, ended.end_reason) == (SessionState.STOPPING, EndReason.IDLE)
    assert ended.end_ms == story.start_ms + IDLE_MS
    assert bill(ended, ended.end_ms + MINUTE_MS).billed_ms == IDLE_MS


async def test_what_any_process_runs_keeps_it_open(story: Story):
    await story.tell(IDLE_MS - 1_000, "host.1", runs=True)
    await story.tell(IDLE_MS - 1_000, "other.1", runs=True)
    await story.look(IDLE_MS + 2_000)
    assert (await story.get()).is_open
    await story.tell(IDLE_MS + 2_000, "host.1", ended_ago_ms={story.session_id: 500})
    await story.look(IDLE_MS + 3_000)
    assert (await story.get()).is_open
    await story.tell(IDLE_MS + 4_000, "other.1", ended_ago_ms={story.session_id: 1_000})
    await story.look(2 * IDLE_MS + 1_000)
    assert (await story.get()).is_open
    await story.look(2 * IDLE_MS + 4_000)
    assert (await story.get()).end_ms == story.start_ms + 2 * IDLE_MS + 3_000


async def test_an_end_that_is_told_late_takes_nothing_back(story: Story):
    await story.tell(10_000, ended_ago_ms={story.session_id: 0})
    await story.tell(11_000, "other.1", ended_ago_ms={story.session_id: 9_000})
    assert (await story.get()).activity.last_ms == story.start_ms + 10_000


async def test_of_a_process_that_died_the_last_word_counts(story: Story):
    await story.tell(10_000, runs=True)
    assert (await story.get()).activity.busy_until_ms == story.start_ms + 10_000 + ACTIVITY_LEASE_MS
    await story.look(IDLE_MS + 11_000)
    ended = await story.get()
    assert (ended.end_reason, ended.end_ms) == (EndReason.IDLE, story.start_ms + 10_000 + IDLE_MS)
    assert ended.activity.last_ms == story.start_ms + 10_000
    assert ended.activity.busy_until_ms is None


async def test_the_next_life_of_a_host_knows_that_nothing_of_the_last_one_runs(story: Story):
    await story.tell(10_000, "host.1", runs=True)
    await story.tell(10_000, "host2.1", runs=True)
    await story.at(11_000, hosts.remove_host, "host")
    assert (await story.get()).activity.busy_until_ms is not None
    await story.at(11_000, hosts.remove_host, "host2")
    activity = (await story.get()).activity
    assert (activity.last_ms, activity.busy_until_ms) == (story.start_ms + 10_000, None)


async def test_two_processes_that_look_at_once_end_a_session_once(story: Story):
    looks = [story.look(IDLE_MS + 5_000 + late_ms) for late_ms in (0, 700)]
    await asyncio.gather(*looks)
    assert (await story.get()).end_ms == story.start_ms + IDLE_MS


async def test_after_a_stop_by_hand_nothing_ends_by_itself(story: Story):
    await story.at(10_000, sessions.stop_sessions_of_model, "small", EndReason.ADMIN)
    stopped = await story.get()
    assert await story.look(IDLE_MS * 2) is None
    assert await story.get() == stopped


async def test_a_look_says_when_the_next_one_is_due(customer: Customer):
    story = await begin_at_noon(customer)
    assert 0 < await story.look(1_000) <= 2 * MINUTE_MS  # when the first minute is charged
    assert await story.look(IDLE_MS - 10_000) == 11_000  # with the moment of grace
    await story.tell(IDLE_MS, ended_ago_ms={story.session_id: 1_000})
    assert await story.look(IDLE_MS + 1_000) == 49_000  # when the next minute is charged
    assert await story.look(2 * IDLE_MS) is None


@pytest.mark.rule("S23")
async def test_a_late_look_bills_no_time_without_the_model_and_none_after_the_limit(customer: Customer):
    story = await begin(customer, limits=GivenLimits(idle_timeout_ms=MINUTE_MS))
    lost_ms = story.start_ms + 20_000
    await story.at(3 * MINUTE_MS, sessions.model_was_lost, "small", lost_ms=lost_ms)
    await story.look(3 * MINUTE_MS)
    ended = await story.get()
    assert (ended.end_ms, ended.billed_ms) == (story.start_ms + MINUTE_MS, 20_000)
    fresh = await begin(customer, limits=GivenLimits(idle_timeout_ms=MINUTE_MS))
    await fresh.at(MINUTE_MS + 500, sessions.model_was_lost, "small")
    await fresh.look(3 * MINUTE_MS)
    assert (await fresh.get()).billed_ms == MINUTE_MS


@pytest.mark.rule("S16")
@pytest.mark.parametrize(
    ("limits", "reason", "billed_ms"),
    [
        (GivenLimits(max_duration_ms=MINUTE_MS), EndReason.MAX_DURATION, MINUTE_MS),
        (GivenLimits(max_spend_microcredits=30 * PRICE + 7), EndReason.MAX_SPEND, 30_000),
    ],
)
async def test_what_runs_does_not_help_against_the_other_limits(
    customer: Customer, limits: GivenLimits, reason: EndReason, billed_ms: int
):
    story = await begin(customer, limits=limits)
    await story.tell(billed_ms - 1_000, runs=True)
    await story.look(billed_ms - 1)
    assert (await story.get()).is_open
    await story.look(billed_ms)
    ended = await story.get()
    assert (ended.end_reason, ended.end_ms, ended.billed_ms) == (reason, story.start_ms + billed_ms, billed_ms)


async def test_a_start_after_the_limit_begins_a_new_session_and_a_stop_returns_the_bill_to_the_limit(story: Story):
    of_key = {"account_id": "first", "key_id": story.customer.key_id, "model": "small"}
    stopped, already_ended = await story.at(IDLE_MS + 5_000, sessions.stop_session, **of_key, holder="h")
    assert already_ended
    assert (stopped.end_reason, stopped.billed_ms) == (EndReason.IDLE, IDLE_MS)
    fresh, already_active = await story.at(
        IDLE_MS + 5_000, sessions.start_session, **of_key, holder="h", price_microcredits_per_second=PRICE
    )
    assert not already_active
    assert fresh.session_id != story.session_id


async def test_a_start_finds_the_session_past_its_limit_before_anybody_looked(story: Story):
    wanted = {"account_id": "first", "key_id": story.customer.key_id, "model": "small", "holder": "h"}
    _, already_active = await story.at(
        IDLE_MS + 5_000, sessions.start_session, **wanted, price_microcredits_per_second=PRICE
    )
    assert not already_active
    assert (await story.get()).end_reason is EndReason.IDLE


async def test_a_stop_in_the_moment_of_grace_bills_to_the_limit(story: Story):
    await story.at(IDLE_MS + 500, sessions.stop_sessions_of_model, "small", EndReason.ADMIN)
    ended = await story.get()
    assert (ended.end_reason, ended.billed_ms) == (EndReason.IDLE, IDLE_MS)


async def test_a_pending_session_past_its_longest_duration_does_not_begin(customer: Customer):
    session, _ = await customer.start(limits=GivenLimits(max_duration_ms=MINUTE_MS))
    story = Story(customer, session)
    ready_ms = session.create_ms + 2 * MINUTE_MS
    await at(customer.database, ready_ms, sessions.model_became_ready, "small")
    ended = await story.get()
    assert (ended.state, ended.end_reason, ended.billed_ms) == (SessionState.ENDED, EndReason.MAX_DURATION, 0)


@pytest.mark.rule("S17")
async def test_a_silent_holder_is_lost_and_the_session_billed_to_its_last_sign_and_a_minute(customer: Customer):
    story = await begin(customer, holder="library", liveness=Liveness.HEARTBEAT)
    await story.tell(30_000, signs_ago_ms={(story.session_id, "library"): 10_000, (story.session_id, "none"): 0})
    assert (await story.get()).signs == {"library": story.start_ms + 20_000}
    await story.look(20_000 + 600_000, holders_are_heard=False)
    assert (await story.get()).is_open
    await story.look(20_000 + 600_000)
    ended = await story.get()
    assert (ended.end_reason, ended.end_ms) == (EndReason.LOST, story.start_ms + 80_000)
    assert ended.billed_ms == 80_000


async def test_a_stream_is_a_sign_of_life_of_all_holders(customer: Customer):
    story = await begin(customer, holder="library", liveness=Liveness.HEARTBEAT)
    await story.tell(500_000, ended_ago_ms={story.session_id: 0})
    await story.look(700_000)
    assert (await story.get()).is_open


@pytest.mark.rule("S17")
async def test_a_lost_holder_leaves_and_one_that_gives_no_signs_keeps_the_session(customer: Customer):
    story = await begin(customer, holder="library", liveness=Liveness.HEARTBEAT)
    await customer.start(holder="key")
    await story.look(610_000)
    left = await story.get()
    assert (left.holders, left.signs, left.is_open) == (("key",), {}, True)
    assert (await customer.stop(holder="key"))[0].end_reason is EndReason.STOPPED


async def test_a_sign_of_life_of_a_holder_that_gives_none_changes_nothing(story: Story):
    await story.tell(1_000, signs_ago_ms={(story.session_id, "h"): 0})
    assert (await story.get()).liveness is Liveness.NONE


@pytest.mark.rule("S13")
async def test_limits_and_labels_change_and_the_guard_looks_in_time(story: Story):
    await story.at(
        10_000,
        sessions.update_session,
        "first",
        story.session_id,
        limits=lambda _: GivenLimits(idle_timeout_ms=20_000).over(_),
        labels={"a": "b"},
    )
    changed = await story.get()
    assert (changed.limits.idle_timeout_ms, changed.labels) == (20_000, {"a": "b"})
    assert await story.at(10_000, session_activity.time_to_look_ms) == 11_000
    await story.at(10_000, sessions.update_session, "first", story.session_id, limits=lambda limits: limits)
    assert await story.get() == changed


async def test_an_update_that_would_end_the_session_is_refused_and_changes_nothing(story: Story):
    with pytest.raises(FieldInvalidError, match="passed already"):
        await story.at(
            30_000,
            sessions.update_session,
            "first",
            story.session_id,
            limits=lambda limits: GivenLimits(idle_timeout_ms=20_000).over(limits),
        )
    assert (await story.get()).limits.idle_timeout_ms == IDLE_MS
    with pytest.raises(SessionNotFoundError):
        await story.at(0, sessions.update_session, "second", story.session_id, limits=lambda limits: limits)
    with pytest.raises(SessionEndedError):
        await story.at(
            IDLE_MS + 5_000, sessions.update_session, "first", story.session_id, limits=lambda limits: limits
        )


async def test_many_sessions_end_in_one_look(customer: Customer):
    stories = [await begin(customer)]
    for number in range(20):
        other = Customer(customer.database, customer.account_id, (await new_key(customer)))
        stories.append(await begin(other, holder=f"h{number}"))
    latest = max(stories, key=lambda story: story.start_ms)
    assert await latest.look(IDLE_MS + 5_000) is None
    for story in stories:
        assert (await story.get()).end_ms == story.start_ms + IDLE_MS


async def new_key(customer: Customer) -> str:
    api_key, _ = await customer.database.write(accounts.create_api_key, customer.account_id, b"secret")
    return api_key.key_id


async def test_a_session_that_cannot_be_settled_rests_and_keeps_none_of_the_others(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
):
    other = await begin(await new_customer(customer.database, "second"))
    bad = await begin(customer)
    settled = session_funds.settle

    def settle(tx: Transaction, before: Session, after: Session) -> Session:
        if before.session_id == bad.session_id:
            raise InsufficientCreditsError
        return settled(tx, before, after)

    monkeypatch.setattr(session_funds, "settle", settle)
    assert await bad.look(IDLE_MS + 2_000) == session_groups.FAULT_REST_MS
    assert not (await other.customer.get(other.session_id)).is_open
    monkeypatch.undo()
    await bad.look(IDLE_MS + 70_000)
    assert (await bad.get()).billed_ms == IDLE_MS
