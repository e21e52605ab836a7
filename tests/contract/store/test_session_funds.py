"""What a session holds, is charged and ends of, on both databases: units of work at times that the test sets."""

from dataclasses import replace

import pytest

from tests.contract.store.books import PRICE, assert_proven
from tests.contract.store.conftest import Customer
from tests.contract.store.test_session_activity import IDLE_MS, Story, begin_at_noon
from tests.funds import PLENTY, grant
from tidemill_services.domain.errors import FieldInvalidError, InsufficientCreditsError
from tidemill_services.domain.ledger import Balance, Contra, EntryKind, LedgerEntry, Posting
from tidemill_services.domain.session import EndReason, bill
from tidemill_services.domain.session_limits import GivenLimits, SessionLimits
from tidemill_services.store import ledger, sessions

MINUTE_MS = 60_000
FIVE_MINUTES = 300 * PRICE
NEVER_IDLE = GivenLimits(idle_timeout_ms=86_400_000)


async def leave(customer: Customer, microcredits: int) -> None:
    """Have the account own no more than that."""
    taken = Posting(EntryKind.CORRECTION, Contra.CORRECTIONS, microcredits - PLENTY, reason="for a test")
    await customer.database.write(ledger.post, "first", [taken])


async def balance_of(customer: Customer) -> Balance:
    return await customer.database.read(ledger.balance_of, "first")


async def charges_of(story: Story) -> list[LedgerEntry]:
    page = await story.customer.database.read(
        ledger.list_entries, "first", kinds=[EntryKind.SESSION_CHARGE], page_size=1_000
    )
    return list(page.entries)


@pytest.mark.rule("S14")
async def test_five_minutes_of_price_are_held_ahead_and_given_back_at_the_stop(customer: Customer):
    story = await begin_at_noon(customer, limits=NEVER_IDLE)
    assert (await balance_of(customer)).held_microcredits == FIVE_MINUTES
    await story.look(2 * MINUTE_MS)  # a minute is charged, a minute has run since
    assert (await balance_of(customer)).held_microcredits == FIVE_MINUTES + 60 * PRICE
    await story.at(3 * MINUTE_MS, sessions.stop_sessions_of_model, "small", EndReason.STOPPED)
    left = await balance_of(customer)
    assert (left.balance_microcredits, left.held_microcredits) == (PLENTY - 180 * PRICE, 0)


@pytest.mark.rule("S14")
async def test_a_session_whose_credits_are_used_up_ends_with_budget_and_nothing_is_owed(customer: Customer):
    await leave(customer, 400 * PRICE + 7)
    story = await begin_at_noon(customer, limits=NEVER_IDLE)
    for after_ms in range(0, 20 * MINUTE_MS, 20_000):
        await story.look(after_ms)
    ended = await story.get()
    assert (ended.end_reason, ended.end_ms) == (EndReason.BUDGET, story.start_ms + 400_000)
    assert bill(ended, 0).cost_microcredits == 400 * PRICE
    assert await balance_of(customer) == Balance(7, 0, (await balance_of(customer)).account_sequence)
    await assert_proven(customer.database)


@pytest.mark.rule("S15")
async def test_sessions_that_share_the_last_credits_never_take_more_than_there_is(customer: Customer):
    await leave(customer, 2 * FIVE_MINUTES + 61 * PRICE)
    stories = [await begin_at_noon(customer, limits=NEVER_IDLE)]
    stories.append(await begin_at_noon(customer, model="large", limits=NEVER_IDLE))
    with pytest.raises(InsufficientCreditsError):
        await leave(customer, -1)
    for after_ms in range(0, 40 * MINUTE_MS, 47_000):
        await stories[1].look(after_ms)
        assert 0 <= (await balance_of(customer)).held_microcredits <= (await balance_of(customer)).balance_microcredits
    ended = [await story.get() for story in stories]
    assert {session.end_reason for session in ended} == {EndReason.BUDGET}
    cost = sum(bill(session, 0).cost_microcredits for session in ended)
    assert cost + (await balance_of(customer)).balance_microcredits == 2 * FIVE_MINUTES + 61 * PRICE
    await assert_proven(customer.database)


@pytest.mark.rule("S11")
async def test_a_row_is_written_every_minute_and_at_the_end(customer: Customer):
    story = await begin_at_noon(customer, limits=NEVER_IDLE)
    for after_ms in range(0, 5 * MINUTE_MS + 1, 10_000):
        await story.look(after_ms)
    await story.at(5 * MINUTE_MS + 30_500, sessions.stop_sessions_of_model, "small", EndReason.STOPPED)
    rows = [row.posting.used for row in await charges_of(story)]
    assert sum(row.billed_seconds for row in rows) == 331
    assert len(rows) == 5
    assert all(row.until_ms - row.from_ms <= MINUTE_MS for row in rows[:-1])
    assert rows[0].from_ms == story.start_ms
    assert rows[-1].until_ms == story.start_ms + 5 * MINUTE_MS + 30_500


@pytest.mark.rule("S9")
async def test_the_price_of_the_start_holds_to_the_end(customer: Customer):
    story = await begin_at_noon(customer, price_revision=3)
    dearer = {"price_microcredits_per_second": 9 * PRICE, "price_revision": 4}
    of_key = {"account_id": "first", "key_id": customer.key_id, "model": "small"}
    await story.at(1_000, sessions.start_session, **of_key, **dearer, holder="other")
    await story.look(IDLE_MS + 5_000)
    ended = await story.get()
    assert (ended.price_revision, bill(ended, 0).cost_microcredits) == (3, 900 * PRICE)
    assert {row.posting.used.price_revision for row in await charges_of(story)} == {3}


@pytest.mark.rule("S13")
async def test_a_spending_limit_that_a_standing_clock_has_passed_is_refused(customer: Customer):
    story = await begin_at_noon(customer, limits=NEVER_IDLE)
    await story.at(50_000, sessions.model_was_lost, "small")

    def lower(limits: SessionLimits) -> SessionLimits:
        return replace(limits, max_spend_microcredits=49 * PRICE)

    with pytest.raises(FieldInvalidError, match="is passed already"):
        await story.at(55_000, sessions.update_session, "first", story.session_id, limits=lower)
    await story.at(56_000, sessions.stop_sessions_of_model, "small", EndReason.STOPPED)
    assert (await balance_of(customer)).balance_microcredits == PLENTY - 50 * PRICE


@pytest.mark.rule("S14")
@pytest.mark.parametrize("is_stopped_by_hand", [False, True])
async def test_a_clock_that_ran_beyond_its_credits_before_it_stood_is_billed_to_their_end(
    customer: Customer, is_stopped_by_hand: bool
):
    await leave(customer, FIVE_MINUTES)
    story = await begin_at_noon(customer, limits=NEVER_IDLE)
    await story.tell(302_000, runs=True, waiting_ago_ms={story.session_id: 1_000})  # while nobody could look
    if is_stopped_by_hand:
        of_key = {"account_id": customer.account_id, "key_id": customer.key_id, "all_holders": True}
        await story.at(302_500, sessions.stop_session, **of_key, model="small")
    else:
        await story.look(302_500)
    ended = await story.get()
    assert (ended.end_reason, ended.end_ms) == (EndReason.BUDGET, story.start_ms + 300_000)
    left = await balance_of(customer)
    assert (left.balance_microcredits, left.held_microcredits) == (0, 0)


@pytest.mark.rule("S14")
async def test_a_clock_that_ran_beyond_its_credits_before_it_stood_has_what_was_granted_meanwhile(customer: Customer):
    await leave(customer, FIVE_MINUTES)
    story = await begin_at_noon(customer, limits=NEVER_IDLE)
    await story.tell(302_000, runs=True, waiting_ago_ms={story.session_id: 1_000})
    await story.at(302_200, grant, "first", 10 * PRICE)
    await story.look(302_500)
    assert (await story.get()).is_open
    await story.at(303_000, sessions.stop_sessions_of_model, "small", EndReason.STOPPED)
    left = await balance_of(customer)
    assert (left.balance_microcredits, left.held_microcredits) == (9 * PRICE, 0)
