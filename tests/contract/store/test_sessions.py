"""Units of work on sessions."""

import asyncio

import pytest
from sqlalchemy import insert, select

from tests.contract.store.conftest import Customer, new_customer
from tidemill_services.domain.errors import (
    FieldInvalidError,
    ModelNotFoundError,
    SessionDiffersError,
    SessionNotFoundError,
)
from tidemill_services.domain.session import EndReason, Liveness, SessionState, bill
from tidemill_services.domain.session_limits import GivenLimits, SessionLimits
from tidemill_services.store import sessions
from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import models, replicas


def add_ready_replica(tx: Transaction, model: str) -> None:
    tx.connection.execute(
        insert(replicas).values(
            replica_id="r",
            model=model,
            host_id="h",
            epoch=1,
            state="READY",
            progress=1.0,
            detail="",
            create_ms=tx.now_ms,
        )
    )


async def test_a_new_session_is_pending_and_keeps_what_was_asked(customer: Customer):
    limits = GivenLimits(idle_timeout_ms=60_000, max_duration_ms=600_000, max_spend_microcredits=5_000_000)
    labels = {"team": "tide", "odd": "naïve \x00 ✓"}
    session, already_active = await customer.start(limits=limits, labels=labels, liveness=Liveness.HEARTBEAT)
    assert not already_active
    assert (session.state, session.labels, session.liveness) == (SessionState.PENDING, labels, Liveness.HEARTBEAT)
    assert session.limits == SessionLimits(60_000, 600_000, 5_000_000)
    assert session.price_microcredits_per_second == 1_250
    assert await customer.get(session.session_id) == session


@pytest.mark.rule("S10")
async def test_a_hundred_starts_at_once_make_one_session(customer: Customer):
    started = await asyncio.gather(*(customer.start(holder=f"h{number % 10}") for number in range(100)))
    assert len({session.session_id for session, _ in started}) == 1
    assert [already_active for _, already_active in started].count(False) == 1
    session = await customer.get(started[0][0].session_id)
    assert sorted(session.holders) == [f"h{number}" for number in range(10)]


@pytest.mark.rule("S3")
async def test_the_clock_runs_at_once_where_the_model_is_ready(customer: Customer):
    await customer.database.write(add_ready_replica, "small")
    ready, _ = await customer.start()
    waiting, _ = await customer.start(model="large")
    assert (ready.state, ready.clock_since_ms) == (SessionState.ACTIVE, ready.create_ms)
    assert waiting.state is SessionState.PENDING


async def test_an_unknown_model_starts_no_session(customer: Customer):
    with pytest.raises(ModelNotFoundError, match="'none'"):
        await customer.start(model="none")


@pytest.mark.rule("S13")
async def test_other_limits_are_refused_and_none_are_not(customer: Customer):
    limits = GivenLimits(idle_timeout_ms=60_000, max_duration_ms=600_000)
    await customer.start(limits=limits)
    assert (await customer.start(limits=limits))[1]
    assert (await customer.start(limits=GivenLimits(idle_timeout_ms=60_000)))[1]
    assert (await customer.start())[1]
    for other in (GivenLimits(idle_timeout_ms=61_000), GivenLimits(max_spend_microcredits=5_000_000)):
        with pytest.raises(SessionDiffersError):
            await customer.start(limits=other)
    with pytest.raises(FieldInvalidError, match=r"limits\.idle_timeout must be 1 to"):
        await customer.start(limits=GivenLimits(idle_timeout_ms=0))


async def test_bad_fields_are_refused_by_name(customer: Customer):
    with pytest.raises(FieldInvalidError) as refusal:
        await customer.start(holder="")
    assert refusal.value.field == "holder"
    with pytest.raises(FieldInvalidError) as refusal:
        await customer.start(labels={"": "x"})
    assert refusal.value.field == "labels"


@pytest.mark.rule("S10")
async def test_the_session_ends_with_its_last_holder(customer: Customer):
    session, _ = await customer.start(holder="a")
    await customer.start(holder="b")
    left, already_ended = await customer.stop(holder="a")
    assert (left.holders, left.is_open, already_ended) == (("b",), True, False)
    left, _ = await customer.stop(holder="a")
    assert left.holders == ("b",)
    ended, already_ended = await customer.stop(holder="b")
    assert (ended.state, ended.holders, already_ended) == (SessionState.ENDED, (), False)
    assert await customer.get(session.session_id) == ended


@pytest.mark.rule("S10")
async def test_a_stop_for_all_ends_it_whoever_holds_it(customer: Customer):
    await customer.start(holder="a")
    await customer.start(holder="b")
    ended, _ = await customer.stop(holder="", all_holders=True, reason=EndReason.ADMIN)
    assert (ended.holders, ended.end_reason) == ((), EndReason.ADMIN)


@pytest.mark.rule("S12")
async def test_stopping_again_returns_the_same_bill(customer: Customer):
    session, _ = await customer.start()
    await customer.database.write(sessions.model_became_ready, "small")
    stopped, already_ended = await customer.stop()
    assert not already_ended
    for way in ({}, {"session_id": session.session_id}, {"all_holders": True}):
        again, already_ended = await customer.stop(**way)
        assert already_ended
        assert bill(again, again.end_ms + 60_000) == bill(stopped, stopped.end_ms)


async def test_a_stop_without_any_session_is_told(customer: Customer):
    with pytest.raises(SessionNotFoundError, match="'large'"):
        await customer.stop(model="large")
    with pytest.raises(SessionNotFoundError):
        await customer.stop(session_id="0" * 32)


async def test_the_model_was_used_until_the_stop(customer: Customer):
    await customer.start()
    ended, _ = await customer.stop()
    last_used_ms = select(models.c.last_used_ms).where(models.c.name == "small")
    assert await customer.database.read(lambda tx: tx.connection.execute(last_used_ms).scalar_one()) == ended.end_ms


async def test_a_stopped_session_drains_and_a_new_one_may_start_beside_it(customer: Customer):
    await customer.start()
    await customer.database.write(sessions.model_became_ready, "small")
    stopping, _ = await customer.stop()
    assert stopping.state is SessionState.STOPPING
    fresh, already_active = await customer.start()
    assert not already_active
    assert fresh.session_id != stopping.session_id
    for _ in range(2):
        await customer.database.write(sessions.finish_session, stopping.session_id)
        assert (await customer.get(stopping.session_id)).state is SessionState.ENDED
    assert (await customer.get(fresh.session_id)).is_open


async def test_the_news_of_a_model_reaches_all_its_open_sessions_and_no_other(customer: Customer):
    other = await new_customer(customer.database, "second")
    mine, theirs, large = (
        (await customer.start())[0],
        (await other.start())[0],
        (await customer.start(model="large"))[0],
    )
    await customer.database.write(sessions.model_became_ready, "small")
    since_ms = (await customer.get(mine.session_id)).clock_since_ms
    await customer.database.write(sessions.model_became_ready, "small")
    assert (await customer.get(mine.session_id)).clock_since_ms == since_ms
    assert (await customer.get(mine.session_id)).state is SessionState.ACTIVE
    assert (await other.get(theirs.session_id)).state is SessionState.ACTIVE
    assert (await customer.get(large.session_id)).state is SessionState.PENDING
    await customer.database.write(sessions.model_was_lost, "small")
    assert (await customer.get(mine.session_id)).clock_since_ms is None


@pytest.mark.rule("S7")
async def test_time_after_the_last_sign_of_life_is_not_billed(customer: Customer):
    session, _ = await customer.start()
    await customer.database.write(sessions.model_became_ready, "small")
    since_ms = (await customer.get(session.session_id)).clock_since_ms
    await customer.database.write(sessions.model_was_lost, "small", lost_ms=since_ms + 1)
    lost = await customer.get(session.session_id)
    assert lost.billed_ms <= 1
    assert lost.state is SessionState.ACTIVE


async def test_all_open_sessions_of_a_model_are_stopped_at_once(customer: Customer):
    other = await new_customer(customer.database, "second")
    mine, theirs, large = (
        (await customer.start())[0],
        (await other.start())[0],
        (await customer.start(model="large"))[0],
    )
    stopped = await customer.database.write(sessions.stop_sessions_of_model, "small", EndReason.ADMIN)
    assert sorted(stopped) == sorted([mine.session_id, theirs.session_id])
    assert (await other.get(theirs.session_id)).end_reason is EndReason.ADMIN
    assert (await customer.get(large.session_id)).is_open
    assert await customer.database.write(sessions.stop_sessions_of_model, "small", EndReason.ADMIN) == []


async def test_stopped_sessions_are_found_until_they_have_ended_and_named_ones_afterwards(customer: Customer):
    session, _ = await customer.start()
    await customer.database.write(sessions.model_became_ready, "small")
    assert await customer.database.read(sessions.list_stopped, [session.session_id]) == []
    await customer.stop()
    (stopped,) = await customer.database.read(sessions.list_stopped)
    assert (stopped.session_id, stopped.state) == (session.session_id, SessionState.STOPPING)
    await customer.database.write(sessions.finish_session, session.session_id)
    assert await customer.database.read(sessions.list_stopped) == []
    (ended,) = await customer.database.read(sessions.list_stopped, [session.session_id])
    assert ended.state is SessionState.ENDED


async def test_open_sessions_are_counted_by_model(customer: Customer):
    other = await new_customer(customer.database, "second")
    for who, model in ((customer, "small"), (other, "small"), (customer, "large")):
        await who.start(model=model)
    assert await customer.database.read(sessions.count_open_by_model) == {"small": 2, "large": 1}
    await customer.stop(model="large")
    assert await customer.database.read(sessions.count_open_by_model) == {"small": 2}


async def test_a_session_is_found_by_its_key_and_model_while_it_is_open(customer: Customer):
    session, _ = await customer.start()
    assert await customer.database.read(sessions.open_session_of, customer.key_id, "small") == session
    assert await customer.database.read(sessions.open_session_of, customer.key_id, "large") is None
    await customer.stop()
    assert await customer.database.read(sessions.open_session_of, customer.key_id, "small") is None


@pytest.mark.parametrize("session_id", ["", "x", "0" * 32, "\x00", "0" * 33, "'; DROP TABLE sessions"])
async def test_no_other_session_is_found(customer: Customer, session_id: str):
    with pytest.raises(SessionNotFoundError):
        await customer.get(session_id)


async def test_another_account_finds_nothing(customer: Customer):
    other = await new_customer(customer.database, "second")
    session, _ = await customer.start()
    with pytest.raises(SessionNotFoundError):
        await other.get(session.session_id)
    with pytest.raises(SessionNotFoundError):
        await other.stop(session_id=session.session_id)
    with pytest.raises(SessionNotFoundError):
        await other.stop()
    assert (await other.database.read(sessions.list_sessions, "second")).sessions == ()
    assert (await customer.get(session.session_id)).is_open


async def make_sessions(customer: Customer, count: int) -> list[str]:
    """Start and stop sessions one after the other; return their ids, newest first."""
    made = []
    for _ in range(count):
        session, _ = await customer.start()
        await customer.stop()
        made.append(session.session_id)
    return sorted(made, reverse=True)


async def test_pages_are_newest_first_and_do_not_move_when_one_starts_meanwhile(customer: Customer):
    made = await make_sessions(customer, 7)
    seen, token = [], ""
    while True:
        page = await customer.database.read(sessions.list_sessions, "first", page_size=3, page_token=token)
        seen += [session.session_id for session in page.sessions]
        token = page.next_page_token
        if not token:
            break
        await customer.start(model="large")
        await customer.stop(model="large")
    assert seen == made


async def test_a_list_may_be_of_one_model_or_of_what_has_not_ended(customer: Customer):
    await make_sessions(customer, 2)
    small, large = (await customer.start())[0], (await customer.start(model="large"))[0]
    listed = await customer.database.read(sessions.list_sessions, "first", model="large")
    assert listed.sessions == (large,)
    listed = await customer.database.read(sessions.list_sessions, "first", open_only=True)
    assert {session.session_id for session in listed.sessions} == {small.session_id, large.session_id}


@pytest.mark.parametrize(
    ("wanted", "field"),
    [({"page_size": -1}, "page_size"), ({"page_size": 1_001}, "page_size"), ({"page_token": "?"}, "page_token")],
)
async def test_a_bad_page_is_refused_by_name(customer: Customer, wanted: dict, field: str):
    with pytest.raises(FieldInvalidError) as refusal:
        await customer.database.read(sessions.list_sessions, "first", **wanted)
    assert refusal.value.field == field
