"""Limits held in slices on a real store, by one control process and by several."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TypeVar

import pytest
from sqlalchemy import event, func, select

from tests.databases import PostgresServer
from tidemill_services.domain.api_key import Role
from tidemill_services.domain.errors import LimitReachedError
from tidemill_services.domain.limits import MINUTE_MS, UsageLimits, slice_size
from tidemill_services.identity import Caller
from tidemill_services.store.database import Database
from tidemill_services.store.opening import open_database
from tidemill_services.store.tables import limit_slices
from tidemill_services.usage_limits import CallPlaces, UsageGuard

Result = TypeVar("Result")


def caller(
    account: UsageLimits | None = None, key: UsageLimits | None = None, *, account_id: str = "a", key_id: str = "k"
) -> Caller:
    return Caller(
        account_id,
        f"{account_id}-{key_id}",
        Role.USER,
        None,
        account_limits=account or UsageLimits(),
        key_limits=key or UsageLimits(),
    )


@asynccontextmanager
async def running(database: Database, name: str = "one") -> AsyncIterator[UsageGuard]:
    guard = UsageGuard(database, name)
    task = asyncio.create_task(guard.run())
    try:
        yield guard
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await guard.close()


async def let_in(guard: UsageGuard, who: Caller, times: int) -> int:
    """How many of so many requests at once were let in."""
    results = await asyncio.gather(*(guard.count_request(who) for _ in range(times)), return_exceptions=True)
    assert all(result is None or isinstance(result, LimitReachedError) for result in results), results
    return sum(result is None for result in results)


async def in_one_minute(database: Database, experiment: Callable[[str], Awaitable[Result]]) -> Result:
    """The result of an experiment with an account of its own that no minute's end fell into; else it is made again."""
    for number in itertools.count():
        before = await database.read(lambda tx: tx.now_ms // MINUTE_MS)
        failure: BaseException | None = None
        try:
            result = await experiment(f"a{number}")
        except (AssertionError, LimitReachedError, pytest.fail.Exception) as error:
            failure = error
        if before == await database.read(lambda tx: tx.now_ms // MINUTE_MS):
            if failure is not None:
                raise failure
            return result
    raise AssertionError("the count has no end")


async def until_held(database: Database, number: int) -> None:
    while True:
        if await held_in_all(database) == number:
            return
        await asyncio.sleep(0.02)


async def held_in_all(database: Database) -> int:
    query = select(func.coalesce(func.sum(limit_slices.c.held), 0))
    return int(await database.read(lambda tx: tx.connection.execute(query).scalar_one()))


@pytest.mark.rule("A2")
async def test_as_many_requests_as_the_limit_says_are_let_in_and_the_next_hears_when_to_come_again(database: Database):
    async def ask(account_id: str) -> tuple[int, LimitReachedError | None]:
        who = caller(UsageLimits(requests_per_minute=20), account_id=account_id)
        num_let_in = await let_in(guard, who, 50)
        try:
            await guard.count_request(who)
        except LimitReachedError as error:
            return num_let_in, error
        return num_let_in, None

    async with running(database) as guard:
        num_let_in, refusal = await in_one_minute(database, ask)
        assert num_let_in == 20
        assert refusal is not None
        assert "20 requests a minute" in str(refusal)
        assert 0 < refusal.retry_after_seconds <= 60
        assert await let_in(guard, caller(), 50) == 50


async def test_a_keys_limit_holds_within_its_accounts_and_a_refusal_costs_the_account_nothing(database: Database):
    account = UsageLimits(requests_per_minute=12)

    async def ask(account_id: str) -> tuple[int, int]:
        narrow = caller(account, UsageLimits(requests_per_minute=4), account_id=account_id)
        other = caller(account, account_id=account_id, key_id="other")
        return await let_in(guard, narrow, 30), await let_in(guard, other, 30)

    async with running(database) as guard:
        assert await in_one_minute(database, ask) == (4, 8)


@pytest.mark.rule("A2")
async def test_as_many_generations_run_at_a_time_as_the_limit_says(database: Database):
    who = caller(UsageLimits(concurrent_generations=3))
    async with running(database) as guard, AsyncExitStack() as held:
        for _ in range(3):
            held.enter_context(await guard.generation(who))
        with pytest.raises(LimitReachedError, match="3 generations at a time") as refused:
            held.enter_context(await guard.generation(who))
        assert refused.value.retry_after_seconds
        await held.aclose()
        with await guard.generation(who):
            pass


async def test_a_batch_that_is_larger_than_the_limit_takes_longer_and_ends(database: Database):
    who = caller(UsageLimits(concurrent_generations=2))
    num_running = most = 0

    async def one(places: CallPlaces) -> None:
        nonlocal num_running, most
        with await places.one():
            num_running += 1
            most = max(most, num_running)
            await asyncio.sleep(0.01)
            num_running -= 1

    async with running(database) as guard:
        with await guard.generation(who):
            places = CallPlaces(guard, who)
            await asyncio.gather(*(one(places) for _ in range(12)))
    assert most == 2


async def test_the_hot_path_does_not_ask_the_store(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tidemill_services.usage_limits.SETTLE_SECONDS", 3600.0)
    who = caller(UsageLimits(requests_per_minute=1_000_000, concurrent_generations=10_000))
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    async with running(database) as guard:
        with await guard.generation(who):
            await guard.count_request(who)
        engines = (database._backend.write_engine, database._backend.read_engine)
        for engine in engines:
            event.listen(engine, "before_cursor_execute", count)
        for _ in range(1_000):
            await guard.count_request(who)
            await asyncio.sleep(0)  # so that the guard's own task may run
            with await guard.generation(who):
                pass
        for engine in engines:
            event.remove(engine, "before_cursor_execute", count)
    assert statements < 50  # the end of a minute may fall into it


async def test_a_guard_that_ends_leaves_no_place_behind(database: Database):
    who = caller(UsageLimits(concurrent_generations=3))
    async with running(database) as guard:
        with await guard.generation(who):
            assert await held_in_all(database) == 1
    assert await held_in_all(database) == 0


async def test_idle_slices_are_given_back_and_those_in_use_are_not(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tidemill_services.usage_limits.SETTLE_SECONDS", 0.05)
    who = caller(key=UsageLimits(concurrent_generations=80))
    async with running(database) as guard, asyncio.timeout(60):
        with await guard.generation(who):
            await until_held(database, 1)
        await until_held(database, 0)


@pytest.mark.rule("A2")
async def test_several_processes_together_let_in_no_more_than_the_limit(postgres_server: PostgresServer):
    url = postgres_server.copy_database()
    async with AsyncExitStack() as parts:
        parts.callback(postgres_server.drop_database, url)
        guards = []
        for name in ("one", "two", "three"):
            database = open_database(url)
            await database.open()
            parts.push_async_callback(database.close)
            guards.append(await parts.enter_async_context(running(database, name)))
        who = caller(UsageLimits(concurrent_generations=7))

        async def ask(account_id: str) -> int:
            asking = caller(UsageLimits(requests_per_minute=40), account_id=account_id)
            return sum(await asyncio.gather(*(let_in(guard, asking, 40) for guard in guards)))

        num_let_in = await in_one_minute(database, ask)
        assert 40 - 3 * slice_size(40) <= num_let_in <= 40  # a process may hold what it has not spent yet

        async def generate(guard: UsageGuard) -> bool:
            try:
                parts.enter_context(await guard.generation(who))
            except LimitReachedError:
                return False
            return True

        held = await asyncio.gather(*(generate(guard) for guard in guards for _ in range(7)))
        assert sum(held) == 7


@pytest.mark.rule("A2")
async def test_tokens_of_a_minute_count_with_the_most_until_an_answer_ends_and_with_what_it_used_from_then_on(
    database: Database,
) -> None:
    async def experiment(account_id: str) -> None:
        who = caller(UsageLimits(tokens_per_minute=100), account_id=account_id)
        async with running(database) as guard:
            with await guard.generation(who):
                places = CallPlaces(guard, who)
                with await places.tokens(80) as used:
                    with pytest.raises(LimitReachedError) as refused:
                        await places.tokens(21)
                    assert refused.value.retry_after_seconds is not None
                    used.num_tokens = 30
                with await places.tokens(70):
                    pass
                with pytest.raises(LimitReachedError, match="ask for fewer") as never:
                    await places.tokens(101)
                assert (never.value.field, never.value.retry_after_seconds) == ("options.max_tokens", None)

    await in_one_minute(database, experiment)


@pytest.mark.rule("A2")
async def test_processes_never_use_more_tokens_together_than_the_limit(database: Database) -> None:
    async def experiment(account_id: str) -> int:
        who = caller(UsageLimits(tokens_per_minute=1_000), account_id=account_id)
        async with running(database, "one") as one, running(database, "two") as two:
            results = await asyncio.gather(
                *((one, two)[number % 2].take_tokens(who, 90) for number in range(40)), return_exceptions=True
            )
        assert all(isinstance(each, LimitReachedError) for each in results if isinstance(each, BaseException))
        return sum(not isinstance(each, BaseException) for each in results)

    assert 10 <= await in_one_minute(database, experiment) <= 11
