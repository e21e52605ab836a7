"""Limits, and the slices of them that processes hold: together never more than there is."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.domain.limits import (
    MAX_LIMIT,
    MAX_TOKENS_PER_MINUTE,
    MINUTE_MS,
    PLACES_LEASE_MS,
    LimitKind,
    Slice,
    SliceAsk,
    UsageLimits,
    answer,
    slice_size,
)

NUM_PROCESSES = 3
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "give back", "lease", "settle", "wait", "lose", "die"]),
        st.integers(0, NUM_PROCESSES - 1),
    ),
    max_size=120,
)


class Platform:
    """Some processes with a slice each, and the store between them, on one clock."""

    def __init__(self, kind: LimitKind, limit: int) -> None:
        self.kind, self.limit = kind, limit
        self.now_ms = 5 * MINUTE_MS + 17
        self.slices = [Slice(kind, limit) for _ in range(NUM_PROCESSES)]
        self.names = list(range(NUM_PROCESSES))
        self.rows: dict[int, tuple[int, int]] = {}  # held and expire_ms by the process's name
        self.taken: list[int] = []  # times of the requests that were let in

    def take(self, place: int) -> bool:
        if not self.slices[place].take(self.now_ms / 1000):
            return False
        self.taken.append(self.now_ms)
        return True

    def lease(self, place: int, *, wanted: int | None = None, answer_arrives: bool = True) -> None:
        mine, name = self.slices[place], self.names[place]
        self.rows = {who: row for who, row in self.rows.items() if row[1] > self.now_ms}
        ask = SliceAsk(
            "s", self.kind, self.limit, mine.held, mine.spent, mine.wanted(1) if wanted is None else wanted, mine.period
        )
        others = sum(held for who, (held, _) in self.rows.items() if who != name)
        lease = answer(ask, held_by_others=others, is_live=name in self.rows, now_ms=self.now_ms)
        self.rows[name] = (lease.held, lease.expire_ms)
        if answer_arrives:
            mine.leased(lease.held, lease.expire_ms, lease.expire_ms / 1000)

    def settle(self, place: int) -> None:
        self.slices[place].settle()
        self.lease(place, wanted=self.slices[place].held)

    def do(self, step: str, place: int) -> None:
        match step:
            case "take":
                self.take(place)
            case "give back" if self.kind is LimitKind.GENERATIONS:
                self.slices[place].give_back()
            case "lease":
                self.lease(place)
            case "lose":
                self.lease(place, answer_arrives=False)
            case "settle":
                self.settle(place)
            case "wait":
                self.now_ms += 7_919
            case "die":
                self.names[place] = max(self.names) + 1
                self.slices[place] = Slice(self.kind, self.limit)


@pytest.mark.rule("A2")
@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), STEPS)
def test_no_minute_has_more_requests_than_the_limit_in_any_number_of_processes(limit: int, steps) -> None:
    platform = Platform(LimitKind.REQUESTS, limit)
    for step, place in steps:
        platform.do(step, place)
        minute = platform.now_ms // MINUTE_MS
        assert sum(taken // MINUTE_MS == minute for taken in platform.taken) <= limit


@pytest.mark.rule("A2")
@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), STEPS)
def test_no_more_generations_run_than_the_limit_as_long_as_leases_are_renewed(limit: int, steps) -> None:
    platform = Platform(LimitKind.GENERATIONS, limit)
    for step, place in steps:
        platform.do(step, place)
        if step == "wait":  # as every process does that is alive, five times within its lease
            for alive in range(NUM_PROCESSES):
                platform.lease(alive, wanted=platform.slices[alive].held)
        assert sum(mine.spent for mine in platform.slices) <= limit


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.sampled_from(LimitKind))
def test_one_process_can_spend_all_of_a_limit_and_not_one_more(limit: int, kind: LimitKind) -> None:
    platform = Platform(kind, limit)
    for _ in range(limit):
        if not platform.take(0):
            platform.lease(0)
            assert platform.take(0)
    platform.lease(0)
    assert not platform.take(0)
    assert platform.slices[0].is_whole(platform.now_ms / 1000)


def test_places_of_a_process_that_died_fall_back_when_their_lease_has_lapsed() -> None:
    platform = Platform(LimitKind.GENERATIONS, 2)
    for _ in range(2):
        platform.lease(0)
        assert platform.take(0)
    platform.do("die", 0)
    platform.lease(1)
    assert not platform.take(1)
    platform.now_ms += PLACES_LEASE_MS
    platform.lease(1)
    assert platform.take(1)


def test_what_was_of_no_use_between_two_settlements_is_given_back() -> None:
    platform = Platform(LimitKind.GENERATIONS, 64)
    platform.lease(0)
    assert platform.take(0)
    assert platform.slices[0].held == slice_size(64)
    platform.settle(0)
    assert platform.slices[0].held == slice_size(64)
    platform.settle(0)
    assert platform.slices[0].held == 1
    platform.slices[0].give_back()
    platform.settle(0)
    assert platform.slices[0].held == 0
    assert not platform.slices[0].is_low()


def test_a_new_minute_begins_with_nothing_spent() -> None:
    platform = Platform(LimitKind.REQUESTS, 1)
    platform.lease(0)
    assert platform.take(0)
    assert not platform.take(0)
    platform.now_ms += MINUTE_MS
    platform.lease(0)
    assert platform.take(0)


def test_a_limit_that_is_lowered_holds_at_once_and_one_that_is_raised_after_the_next_lease() -> None:
    platform = Platform(LimitKind.GENERATIONS, 4)
    for _ in range(2):
        platform.lease(0)
        assert platform.take(0)
    platform.slices[0].limit = platform.limit = 2
    assert not platform.take(0)
    platform.slices[0].limit = platform.limit = 8
    platform.lease(0)
    assert platform.take(0)


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(UsageLimits)])
@pytest.mark.parametrize("value", [0, -1, MAX_TOKENS_PER_MINUTE + 1])
def test_a_limit_that_cannot_be_is_refused_by_its_name(name: str, value: int) -> None:
    with pytest.raises(FieldInvalidError) as refused:
        UsageLimits(**{name: value}).check("account.limits")
    assert refused.value.field == f"account.limits.{name}"
    UsageLimits(**{name: 1}).check("account.limits")


def test_only_tokens_may_be_more_than_a_million_a_minute() -> None:
    UsageLimits(tokens_per_minute=MAX_TOKENS_PER_MINUTE).check("limits")
    with pytest.raises(FieldInvalidError):
        UsageLimits(requests_per_minute=MAX_LIMIT + 1).check("limits")
