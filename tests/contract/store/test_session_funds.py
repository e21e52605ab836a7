"""What a session holds, is charged and ends of, on both databases: units of work at times that the test sets."""

import pytest

from tests.contract.store.conftest import Customer
from tests.contract.store.test_session_activity import IDLE_MS, PRICE, Story, begin_at_noon
from tests.funds import PLENTY
from tidemill_services.domain.errors import InsufficientCreditsError
from tidemill_services.domain.ledger import Balance, Contra, EntryKind, LedgerEntry, Posting
from tidemill_services.domain.session import EndReason, bill
from tidemill_services.domain.session_limits import GivenLimits
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
