"""The leader's loop on a clock that the test moves, over a real store in memory's speed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.scaler.platform import manifest_json
from tidemill_services.domain.scaling import ModelFacts, ScalingPolicy
from tidemill_services.scaler import scaler as scaler_module
from tidemill_services.scaler.scaler import ACT_SECONDS, PATIENCE_SECONDS, WATCH_SECONDS, DemandMemory, Scaler
from tidemill_services.store.clock import Clock
from tidemill_services.store.hosts import HOST_LEASE_MS, renew_host
from tidemill_services.store.leader import LEADER_LEASE_MS
from tidemill_services.store.models import register_model, want_model
from tidemill_services.store.scaling import make_plan, read_placement
from tidemill_services.store.sqlite import SqliteDatabase


class Mill:
    """A store and scalers that share one clock."""

    def __init__(self, path: Path) -> None:
        self.seconds = 1_000.0
        self.database = SqliteDatabase(
            path / "tidemill.db", clock=Clock(lambda: 10**18, lambda: round(self.seconds * 10**9))
        )

    def scaler(self, process_id: str) -> Scaler:
        """A process that may lead."""
        return Scaler(self.database, process_id, monotonic=lambda: self.seconds)

    async def placement(self) -> dict[tuple[str, str], int]:
        """What the hosts shall run."""
        return dict(await self.database.read(read_placement))

    async def pass_time(self, seconds: float, *scalers: Scaler, hosts: tuple[str, ...] = ("a",)) -> None:
        """Let time pass in steps of a second, with its ticks and the hosts' signs of life."""
        for _ in range(round(seconds)):
            self.seconds += 1
            for host in hosts:
                await self.database.write(renew_host, host, 2)
            for scaler in scalers:
                await scaler.tick()


@pytest.fixture
async def mill(tmp_path: Path) -> AsyncIterator[Mill]:
    opened = Mill(tmp_path)
    await opened.database.open()
    await opened.database.write(
        register_model, name="tide", digest="0" * 64, manifest_json=manifest_json(), package_path="/p"
    )
    await opened.database.write(renew_host, "a", 2)
    yield opened
    await opened.database.close()


async def test_the_leader_places_what_is_wanted_and_another_process_only_watches(mill):
    leader, other = mill.scaler("first"), mill.scaler("second")
    await leader.tick()
    await other.tick()
    assert (leader.leads, other.leads) == (True, False)
    await mill.database.write(want_model, "tide")
    await other.tick()
    assert await mill.placement() == {}
    await leader.tick()
    assert await mill.placement() == {("tide", "a"): 1}


async def test_another_process_leads_within_the_lease_when_the_leader_stands_still(mill):
    leader, other = mill.scaler("first"), mill.scaler("second")
    await mill.pass_time(3, leader, other)
    await mill.pass_time(LEADER_LEASE_MS / 1000, other)
    assert other.leads
    await mill.database.write(want_model, "tide")
    await leader.tick()  # it wakes up and must notice
    assert not leader.leads
    assert await mill.placement() == {}
    await other.tick()
    assert await mill.placement() == {("tide", "a"): 1}


async def test_a_leader_that_did_not_renew_for_half_its_lease_does_not_lead(mill):
    leader = mill.scaler("first")
    await leader.tick()
    mill.seconds += ACT_SECONDS - 0.01
    assert leader.leads
    mill.seconds += 0.01
    assert not leader.leads


async def test_a_new_leader_takes_nothing_from_a_silent_host_before_it_watched_for_long_enough(mill):
    await mill.database.write(want_model, "tide")
    leader = mill.scaler("first")
    await leader.tick()
    await mill.database.write(renew_host, "b", 2)
    mill.seconds += 3 * HOST_LEASE_MS / 1000  # everything stood still: the leader, the hosts
    await mill.pass_time(WATCH_SECONDS, leader, hosts=("b",))
    assert await mill.placement() == {("tide", "a"): 1}
    await mill.pass_time(2, leader, hosts=("b",))
    assert await mill.placement() == {("tide", "b"): 1}


async def test_a_model_that_was_only_started_rests_after_ten_minutes(mill):
    leader = mill.scaler("first")
    await mill.database.write(want_model, "tide")
    await mill.pass_time(599, leader)
    assert await mill.placement() == {("tide", "a"): 1}
    await mill.pass_time(2, leader)
    assert await mill.placement() == {}


def facts(num_waiting: int, num_assigned: int = 0) -> tuple[ModelFacts, ...]:
    policy = ScalingPolicy(max_replicas=9, target_generations_per_replica=1)
    return (ModelFacts("tide", policy, num_waiting=num_waiting, num_assigned=num_assigned),)


def test_the_memory_keeps_the_most_that_was_needed_lately():
    memory = DemandMemory(PATIENCE_SECONDS)
    for now, num_waiting in ((0, 2), (10, 5), (20, 1), (30, 3), (40, 0)):
        memory.note(facts(num_waiting), now)
        assert memory.most(now)["tide"] == max(2 if now < 10 else 5, num_waiting)
    assert memory.most(10 + PATIENCE_SECONDS)["tide"] == 5
    assert memory.most(11 + PATIENCE_SECONDS)["tide"] == 3
    assert memory.most(31 + PATIENCE_SECONDS)["tide"] == 0


def test_a_leader_that_knows_nothing_takes_what_a_model_has_for_what_it_needs():
    memory = DemandMemory(PATIENCE_SECONDS)
    memory.note(facts(num_waiting=1, num_assigned=4), 0)
    assert memory.most(PATIENCE_SECONDS)["tide"] == 4
    memory.note(facts(num_waiting=1, num_assigned=4), 1)
    assert memory.most(PATIENCE_SECONDS + 0.5)["tide"] == 1


async def test_a_leader_at_rest_plans_again_for_a_change_and_else_seldom(mill, monkeypatch):
    plans = 0

    def counted(*args, **kwargs):
        nonlocal plans
        plans += 1
        return make_plan(*args, **kwargs)

    monkeypatch.setattr(scaler_module, "make_plan", counted)
    leader = mill.scaler("first")
    await mill.pass_time(30, leader)
    assert plans <= 5
    plans = 0
    await mill.database.write(want_model, "tide")
    await leader.tick()
    assert await mill.placement() == {("tide", "a"): 1}
    await mill.pass_time(5, leader)
    assert plans >= 5  # each second, while somebody needs something


async def test_a_host_that_died_while_all_rested_gets_nothing_when_a_model_wakes(mill):
    leader = mill.scaler("first")
    await mill.database.write(renew_host, "b", 4)  # the one with the most room
    await mill.pass_time(30, leader)
    await mill.database.write(want_model, "tide")
    await leader.tick()
    assert await mill.placement() == {("tide", "a"): 1}
