"""The ledger on both databases: what is posted stands for ever, and no credit is spent twice."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.contract.store.books import LEADER, PRICE, assert_proven, at, make_books, prove, seal
from tests.contract.store.conftest import Customer, new_customer
from tests.funds import PLENTY, grant
from tidemill_services.domain.errors import (
    FieldInvalidError,
    InsufficientCreditsError,
    RefundExceedsChargeError,
    TidemillError,
)
from tidemill_services.domain.ledger import MAX_BALANCE_MICROCREDITS, Balance, EntryKind
from tidemill_services.domain.session import EndReason, SessionState
from tidemill_services.domain.session_billing import DAY_MS, HOLD_AHEAD_MS
from tidemill_services.domain.session_limits import MAX_MAX_DURATION_MS, GivenLimits
from tidemill_services.store import (
    account_credits,
    accounts,
    leader,
    ledger,
    ledger_seal,
    requests,
    session_activity,
    sessions,
)
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.leader import LEADER_LEASE_MS
from tidemill_services.store.opening import open_database

FIVE_MINUTES = HOLD_AHEAD_MS // 1_000 * PRICE


async def poor_customer(customer: Customer, microcredits: int) -> Customer:
    """An account of which nothing but this is known."""
    poor = await new_customer(customer.database, "poor")
    await customer.database.write(account_credits.correct, "poor", microcredits - PLENTY, "a test", "")
    return poor


async def balance(customer: Customer) -> Balance:
    return await customer.database.read(ledger.balance_of, customer.account_id)


async def kinds(customer: Customer) -> list[str]:
    page = await customer.database.read(ledger.list_entries, customer.account_id)
    return [entry.posting.kind.value for entry in page.entries]


async def test_five_minutes_are_held_at_the_start_and_given_back_at_the_stop_of_one_that_never_ran(customer: Customer):
    session, _ = await customer.start()
    held = await balance(customer)
    assert (held.balance_microcredits, held.held_microcredits) == (PLENTY, FIVE_MINUTES)
    assert session.held_microcredits == FIVE_MINUTES
    await customer.stop(session_id=session.session_id)
    assert await kinds(customer) == ["GRANT", "HOLD", "RELEASE"]
    after = await balance(customer)
    assert (after.balance_microcredits, after.held_microcredits) == (PLENTY, 0)
    await assert_proven(customer.database)


async def test_what_several_accounts_have_is_read_at_once(customer: Customer):
    await poor_customer(customer, 5)
    await customer.start()
    found = await customer.database.read(ledger.balances_of, ["poor", customer.account_id, "nobody"])
    assert found["poor"].balance_microcredits == 5
    assert found[customer.account_id] == await balance(customer)
    assert found["nobody"] == Balance()
    assert await customer.database.read(ledger.balances_of, []) == {}


@pytest.mark.rule("L4")
async def test_of_fifty_starts_at_once_as_many_begin_as_there_is_money_for(customer: Customer):
    poor = await poor_customer(customer, 5 * FIVE_MINUTES + FIVE_MINUTES - 1)
    keys = [(await customer.database.write(accounts.create_api_key, "poor", b"secret"))[0].key_id for _ in range(50)]
    starts = [Customer(customer.database, "poor", key_id).start() for key_id in keys]
    found = await asyncio.gather(*starts, return_exceptions=True)
    refused = [each for each in found if isinstance(each, InsufficientCreditsError)]
    assert (len(found) - len(refused), len(refused)) == (5, 45)
    assert (await balance(poor)).held_microcredits == 5 * FIVE_MINUTES
    await assert_proven(customer.database)


async def test_a_session_without_credits_goes_on_where_some_are_given_before_anybody_looks(customer: Customer):
    poor = await poor_customer(customer, FIVE_MINUTES)
    session, _ = await poor.start()
    begin_ms = session.create_ms
    await at(customer.database, begin_ms, sessions.model_became_ready, "small")
    await at(customer.database, begin_ms + 299_000, grant, "poor", 10 * PRICE)
    await at(customer.database, begin_ms + 300_000, session_activity.look_at_sessions, holders_are_heard=True)
    assert (await poor.get(session.session_id)).is_open
    await at(customer.database, begin_ms + 330_000, session_activity.look_at_sessions, holders_are_heard=True)
    ended = await poor.get(session.session_id)
    assert (ended.end_reason, ended.billed_ms) == (EndReason.BUDGET, 310_000)
    assert (await balance(poor)).balance_microcredits == 0
    await assert_proven(customer.database)


async def test_no_more_is_held_than_a_session_may_cost(customer: Customer):
    session, _ = await customer.start(limits=GivenLimits(max_spend_microcredits=100 * PRICE + 7))
    assert session.held_microcredits == 100 * PRICE


async def test_time_that_is_given_back_is_a_row_of_its_own(customer: Customer):
    session, _ = await customer.start()
    begin_ms = session.create_ms
    database = customer.database
    await at(database, begin_ms, sessions.model_became_ready, "small")
    await at(database, begin_ms + 200_000, session_activity.look_at_sessions, holders_are_heard=True)
    lost_ms = begin_ms + 90_400
    await at(database, begin_ms + 210_000, sessions.model_was_lost, "small", lost_ms=lost_ms)
    refund = (await database.read(ledger.list_entries, "first", kinds=[EntryKind.REFUND])).entries[0]
    used = refund.posting.used
    assert (used.billed_seconds, refund.posting.amount_microcredits) == (-49, 49 * PRICE)
    assert (used.from_ms, used.until_ms) == (lost_ms, begin_ms + 140_000)
    assert (await balance(customer)).balance_microcredits == PLENTY - 91 * PRICE
    await assert_proven(database)


async def test_a_charge_is_split_at_midnight(customer: Customer):
    session, _ = await customer.start(limits=GivenLimits(max_duration_ms=MAX_MAX_DURATION_MS))
    midnight_ms = (session.create_ms // DAY_MS + 2) * DAY_MS  # more than a day later, whatever the hour
    begin_ms = midnight_ms - 20_300
    await at(customer.database, begin_ms, sessions.model_became_ready, "small")
    await at(customer.database, begin_ms + 130_000, session_activity.look_at_sessions, holders_are_heard=True)
    charges = (await customer.database.read(ledger.list_entries, "first", kinds=[EntryKind.SESSION_CHARGE])).entries
    parts = [(entry.posting.used.from_ms, entry.posting.used.until_ms) for entry in charges]
    assert parts == [(begin_ms, midnight_ms), (midnight_ms, begin_ms + 70_000)]
    assert [entry.posting.used.billed_seconds for entry in charges] == [21, 49]
    await assert_proven(customer.database)


@pytest.mark.rule("L5")
async def test_no_more_is_refunded_than_was_charged(customer: Customer):
    session, _ = await make_books(customer)
    cost = 302 * PRICE
    give_back = [account_credits.refund, session.session_id]
    with pytest.raises(RefundExceedsChargeError):
        await customer.database.write(*give_back, cost + 1, "too much", "")
    await customer.database.write(*give_back, 2 * PRICE, "some", "")
    with pytest.raises(RefundExceedsChargeError):
        await customer.database.write(*give_back, cost, "too much", "")
    rest = await customer.database.write(*give_back, None, "the rest", "accounts/local/keys/k")
    assert rest.posting.amount_microcredits == cost - 2 * PRICE
    with pytest.raises(RefundExceedsChargeError):
        await customer.database.write(*give_back, None, "nothing is left", "")
    assert (await balance(customer)).balance_microcredits == PLENTY
    await assert_proven(customer.database)


@pytest.mark.rule("L5")
async def test_what_may_still_come_back_by_itself_is_not_refunded_by_hand(customer: Customer):
    session, _ = await customer.start()
    begin_ms, database = session.create_ms, customer.database
    await at(database, begin_ms, sessions.model_became_ready, "small")
    await at(database, begin_ms + 200_000, session_activity.look_at_sessions, holders_are_heard=True)
    with pytest.raises(RefundExceedsChargeError, match="once it has ended"):
        await database.write(account_credits.refund, session.session_id, None, "too early", "")
    await at(database, begin_ms + 210_000, sessions.model_was_lost, "small", lost_ms=begin_ms + 10_000)
    await at(database, begin_ms + 220_000, sessions.stop_sessions_of_model, "small", EndReason.ADMIN)
    await database.write(account_credits.refund, session.session_id, None, "all of it", "")
    assert (await balance(customer)).balance_microcredits == PLENTY
    await assert_proven(database)


@pytest.mark.rule("L3")
@pytest.mark.rule("L4")
async def test_a_correction_takes_nothing_that_is_held_and_a_balance_has_an_end(customer: Customer):
    await customer.start()
    with pytest.raises(InsufficientCreditsError):
        await customer.database.write(account_credits.correct, "first", -(PLENTY - FIVE_MINUTES + 1), "too much", "")
    taken = await customer.database.write(account_credits.correct, "first", -(PLENTY - FIVE_MINUTES), "all", "")
    assert taken.balance_microcredits == taken.held_microcredits == FIVE_MINUTES

    await customer.database.write(grant, "first", MAX_BALANCE_MICROCREDITS - FIVE_MINUTES)
    with pytest.raises(FieldInvalidError, match="No account has more"):
        await customer.database.write(account_credits.grant, "first", 1, "one more", "")
    await assert_proven(customer.database)


@pytest.mark.rule("A13")
async def test_a_hundred_grants_of_one_request_id_at_once_are_one(customer: Customer):
    key = requests.RequestKey("first", "GrantCredits", "the same", b"h" * 32)

    def give(tx: Transaction) -> bytes:
        kept = requests.find_response(tx, key)
        if kept is None:
            kept = str(account_credits.grant(tx, "first", 7, "once", "").ledger_sequence).encode()
            requests.save_response(tx, key, kept)
        return kept

    answers = await asyncio.gather(*(customer.database.write(give) for _ in range(100)))
    assert len(set(answers)) == 1
    assert (await balance(customer)).balance_microcredits == PLENTY + 7


@pytest.mark.parametrize("table", ["ledger_entries", "ledger_blocks", "prices"])
@pytest.mark.rule("L1")
async def test_the_database_refuses_to_change_or_remove_rows(customer: Customer, table: str):
    await customer.start()
    await seal(customer.database)
    column = {"ledger_entries": "reason", "ledger_blocks": "seal_ms", "prices": "actor"}[table]
    statements = [f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"]
    if "Postgres" in type(customer.database).__name__:
        statements.append(f"TRUNCATE {table}")
    if table == "prices":
        await customer.database.write(lambda tx: tx.connection.execute(text(A_PRICE)))
    for statement in statements:
        with pytest.raises((DBAPIError, TidemillError), match="append-only"):
            await customer.database.write(lambda tx, statement=statement: tx.connection.execute(text(statement)))


A_PRICE = "INSERT INTO prices VALUES (1, 'small', '', 1, 1, 1, false, 1, '')"


@pytest.mark.rule("L2")
@pytest.mark.rule("L6")
async def test_two_processes_that_charge_and_seal_at_once_leave_one_chain(customer: Customer, database_url: str):
    if database_url.startswith("sqlite"):
        pytest.skip("a SQLite file has one process")
    other = open_database(database_url)
    await other.open()
    try:
        await new_customer(other, "second")
        databases = (customer.database, other)

        async def post(database: Database, account_id: str) -> None:
            for _ in range(20):
                await database.write(grant, account_id, 5)

        async def lead(database: Database, process_id: str) -> None:
            for _ in range(20):
                epoch = await database.write(leader.renew_leadership, process_id)
                if epoch is not None:
                    await database.write(ledger_seal.seal, process_id, epoch)
                    await database.write(leader.release_leadership, process_id)

        async with asyncio.TaskGroup() as tasks:
            for number, database in enumerate(databases):
                tasks.create_task(lead(database, f"host{number}.1"))
                for account_id in ("first", "second"):
                    tasks.create_task(post(database, account_id))
        await seal(other, "host1.1")
    finally:
        await other.close()
    proof = await assert_proven(customer.database)
    assert proof.num_rows == proof.num_sealed_rows == 2 + 2 * 2 * 20


@pytest.mark.rule("L6")
async def test_a_leader_that_was_replaced_seals_nothing_and_the_next_one_goes_on(customer: Customer):
    database = customer.database
    epoch = await database.write(leader.renew_leadership, LEADER)
    await database.write(grant, "first", 1)
    later_ms = (await database.read(lambda tx: tx.now_ms)) + LEADER_LEASE_MS + 1
    await at(database, later_ms, leader.renew_leadership, "other.1")
    assert not await at(database, later_ms, ledger_seal.seal, LEADER, epoch)
    assert (await prove(database)).num_blocks == 0
    await at(database, later_ms, ledger_seal.seal, "other.1", epoch + 1)
    proof = await assert_proven(database)
    assert (proof.num_blocks, proof.num_rows) == (1, proof.num_sealed_rows)


@pytest.mark.rule("L6")
async def test_a_sealer_that_was_killed_loses_nothing_and_seals_nothing_twice(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
):
    database = customer.database
    epoch = await database.write(leader.renew_leadership, LEADER)

    def seal_and_die(tx: Transaction) -> None:
        ledger_seal.seal(tx, LEADER, epoch)
        raise RuntimeError("killed before the commit")

    with pytest.raises(RuntimeError):
        await database.write(seal_and_die)
    assert (await prove(database)).num_blocks == 0
    monkeypatch.setattr(ledger_seal, "MAX_BLOCK_ROWS", 1)
    await database.write(grant, "first", 1)
    assert await database.write(ledger_seal.seal, LEADER, epoch)
    await seal(database)
    proof = await assert_proven(database)
    assert (proof.num_blocks, proof.num_sealed_rows) == (2, 2)


async def test_a_session_that_was_stopped_is_charged_nothing_more(customer: Customer):
    session, _ = await make_books(customer)
    before = await kinds(customer)
    later_ms = session.end_ms + 3_600_000
    await at(customer.database, later_ms, session_activity.look_at_sessions, holders_are_heard=True)
    await at(customer.database, later_ms, sessions.finish_session, session.session_id)
    await at(customer.database, later_ms, sessions.stop_sessions_of_model, "small", EndReason.ADMIN)
    assert await kinds(customer) == before
    assert (await customer.get(session.session_id)).state is SessionState.ENDED
    await assert_proven(customer.database)
