"""What the leader reads, decides and writes; on SQLite and on Postgres."""

import pytest

from tests.contract.scaling.conftest import Mill
from tidemill_services.store.demand import DEMAND_LEASE_MS, Demand, demand_by_model, publish_demand
from tidemill_services.store.hosts import HOST_LEASE_MS, assignments_of_host, remove_host, renew_host
from tidemill_services.store.leader import LEADER_LEASE_MS, leads, release_leadership, renew_leadership
from tidemill_services.store.models import stop_model, want_model
from tidemill_services.store.replicas import register_replica
from tidemill_services.store.scaling import carry_out_plan, read_facts, read_placement


async def carry_out(mill: Mill, *, process: str = "p", epoch: int = 1, may_lose_hosts: bool = True) -> bool:
    return await mill.do(carry_out_plan, process, epoch, {}, may_lose_hosts=may_lose_hosts)


@pytest.fixture
async def led(mill: Mill) -> Mill:
    """With a leader `p` of epoch 1, and a host `a` for two replicas."""
    assert await mill.do(renew_leadership, "p") == 1
    await mill.do(renew_host, "a", 2)
    return mill


async def test_only_one_process_leads_and_the_next_one_does_when_its_lease_ran_out(mill):
    assert await mill.do(renew_leadership, "first") == 1
    assert await mill.do(renew_leadership, "second") is None
    mill.now = LEADER_LEASE_MS - 1
    assert await mill.do(renew_leadership, "second") is None
    assert await mill.do(renew_leadership, "first") == 1
    mill.now += LEADER_LEASE_MS
    assert await mill.do(renew_leadership, "second") == 2
    assert not await mill.do(leads, "first", 1)
    assert await mill.do(renew_leadership, "first") is None


async def test_a_leader_that_goes_lets_another_lead_at_once(mill):
    await mill.do(renew_leadership, "first")
    await mill.do(release_leadership, "second")
    assert await mill.do(renew_leadership, "second") is None
    await mill.do(release_leadership, "first")
    assert await mill.do(renew_leadership, "second") == 2


async def test_a_process_takes_over_at_once_from_an_earlier_life_of_its_host(mill):
    assert await mill.do(renew_leadership, "a.1") == 1
    assert await mill.do(renew_leadership, "b.1") is None
    assert await mill.do(renew_leadership, "a.2") == 2
    assert not await mill.do(leads, "a.1", 1)


async def test_a_leader_of_the_past_writes_nothing(led):
    await led.do(want_model, "tide")
    led.now = LEADER_LEASE_MS
    assert not await carry_out(led)
    assert await led.do(renew_leadership, "q") == 2
    assert not await carry_out(led)
    assert not await carry_out(led, process="q", epoch=1)
    assert await led.do(read_placement) == {}
    await led.do(renew_host, "a", 2)
    assert await carry_out(led, process="q", epoch=2)
    assert await led.do(read_placement) == {("tide", "a"): 1}


async def test_demand_is_the_sum_over_processes_that_still_count(mill):
    await mill.register("ebb")
    await mill.do(publish_demand, "p", {"tide": Demand(2, 3), "ebb": Demand(0, 1)})
    mill.now = 1_000
    await mill.do(publish_demand, "q", {"tide": Demand(1, 0), "unknown": Demand(1, 1)})
    assert await mill.do(demand_by_model) == {"tide": Demand(3, 3), "ebb": Demand(0, 1)}
    await mill.do(publish_demand, "q", {"tide": Demand(4, 0)})
    assert (await mill.do(demand_by_model))["tide"] == Demand(6, 3)
    mill.now = DEMAND_LEASE_MS
    assert await mill.do(demand_by_model) == {"tide": Demand(4, 0)}
    await mill.do(publish_demand, "q", {})
    assert await mill.do(demand_by_model) == {}


async def test_a_model_that_is_waited_for_is_placed_and_rests_after_its_idle_time(led):
    await led.register("tide", idle_timeout_seconds=100)
    await led.do(publish_demand, "p", {"tide": Demand(0, 1)})
    assert await carry_out(led)
    (assignment,) = await led.do(assignments_of_host, "a")
    assert (assignment.model, assignment.replicas, assignment.epoch, assignment.slots) == ("tide", 1, 1, 8)
    assert assignment.may_start
    await led.do(publish_demand, "p", {})
    for now, is_up in ((50_000, True), (99_999, True), (100_000, False)):
        led.now = now
        await led.do(renew_leadership, "p")
        await led.do(renew_host, "a", 2)
        await carry_out(led)
        assert bool(await led.do(read_placement)) is is_up, now


async def test_an_open_session_keeps_a_model_up_and_its_end_begins_the_idle_time(led):
    session_id = await led.start_session("tide")
    await carry_out(led)
    led.now = 10 * 7_200_000
    await led.do(renew_leadership, "p")
    await led.do(renew_host, "a", 2)
    await carry_out(led)
    assert await led.do(read_placement) == {("tide", "a"): 1}
    (facts,) = await led.do(read_facts, {})
    assert facts.open_sessions == 1
    assert facts.last_used_ms == led.began_ms + led.now
    assert session_id


async def test_a_stopped_model_loses_its_assignment_at_once_and_old_demand_does_not_wake_it(led):
    await led.do(want_model, "tide")
    await led.do(publish_demand, "p", {"tide": Demand(1, 5)})
    await carry_out(led)
    await led.do(stop_model, "tide")
    assert await led.do(read_placement) == {}
    led.now = 1_000
    await carry_out(led)
    assert await led.do(read_placement) == {}
    await led.do(publish_demand, "p", {"tide": Demand(1, 0)})  # who waited was sent away; one still finishes
    led.now = 3_000
    await carry_out(led)
    assert await led.do(read_placement) == {}
    await led.do(publish_demand, "p", {"tide": Demand(1, 1)})
    await carry_out(led)
    assert await led.do(read_placement) == {("tide", "a"): 1}


@pytest.mark.rule("S2")
async def test_a_session_that_is_opened_right_after_a_stop_wakes_the_model_at_once(led):
    await led.do(want_model, "tide")
    await carry_out(led)
    await led.do(stop_model, "tide")
    await led.start_session("tide")
    await carry_out(led)
    (assignment,) = await led.do(assignments_of_host, "a")
    assert assignment.may_start


async def test_what_does_not_change_keeps_the_epoch_in_which_it_was_decided(led):
    await led.register("ebb")
    await led.do(want_model, "tide")
    await carry_out(led)
    led.now = LEADER_LEASE_MS
    assert await led.do(renew_leadership, "q") == 2
    await led.do(renew_host, "a", 2)
    await led.do(want_model, "ebb")
    assert await carry_out(led, process="q", epoch=2)
    epochs = {assignment.model: assignment.epoch for assignment in await led.do(assignments_of_host, "a")}
    assert epochs == {"tide": 1, "ebb": 2}


async def test_a_silent_host_is_lost_only_for_a_leader_that_watched_for_long_enough(led):
    await led.do(want_model, "tide")
    await carry_out(led)
    assert await led.do(register_replica, replica_id="r", model="tide", host_id="a", epoch=1)
    led.now = HOST_LEASE_MS
    await led.do(renew_leadership, "p")
    await led.do(renew_host, "b", 2)
    await carry_out(led, may_lose_hosts=False)
    assert await led.do(read_placement) == {("tide", "a"): 1}
    await carry_out(led, may_lose_hosts=True)
    assert await led.do(read_placement) == {("tide", "b"): 1}
    assert await led.do(assignments_of_host, "a") == ()


async def test_the_demand_of_a_killed_process_is_forgotten_with_its_host(led):
    await led.do(publish_demand, "a.1", {"tide": Demand(3, 0)})
    await led.do(publish_demand, "ab.1", {"tide": Demand(1, 0)})
    await led.do(remove_host, "a")
    assert await led.do(demand_by_model) == {"tide": Demand(1, 0)}


async def test_a_host_that_drains_is_left_for_others(led):
    await led.do(want_model, "tide")
    await carry_out(led)
    await led.do(renew_host, "b", 1)
    await led.do(renew_host, "a", 0)
    await carry_out(led)
    assert await led.do(read_placement) == {("tide", "b"): 1}
