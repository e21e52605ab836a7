"""Models and replicas in the store: who may register, and when sessions are billed; on SQLite and on Postgres."""

import pytest

from tests.contract.scaling.conftest import Mill
from tidemill_services.domain.errors import ModelInUseError, ModelNotFoundError
from tidemill_services.domain.model import ModelState
from tidemill_services.domain.replica import ReplicaState
from tidemill_services.domain.scaling import StartPolicy
from tidemill_services.store.hosts import HOST_LEASE_MS, assignments_of_host, remove_host, renew_host, replicas_of_host
from tidemill_services.store.leader import renew_leadership
from tidemill_services.store.model_views import get_model_view, list_model_views
from tidemill_services.store.models import get_model, list_models, register_model, stop_model, want_model
from tidemill_services.store.replicas import (
    list_replicas,
    register_replica,
    remove_replica,
    start_durations_ms,
    update_replica,
)
from tidemill_services.store.scaling import carry_out_plan


@pytest.fixture
async def placed(mill: Mill) -> Mill:
    """With the model wanted, and placed on host `a` in epoch 1."""
    await mill.do(renew_leadership, "p")
    await mill.do(renew_host, "a", 4)
    await mill.do(want_model, "tide")
    await mill.do(carry_out_plan, "p", 1, {"tide": 2}, may_lose_hosts=True)
    return mill


async def register(mill: Mill, replica_id: str = "r", *, model: str = "tide", host: str = "a", epoch: int = 1) -> bool:
    return await mill.do(register_replica, replica_id=replica_id, model=model, host_id=host, epoch=epoch)


async def be(mill: Mill, state: ReplicaState, replica_id: str = "r", progress: float = 1.0, silent_ms: int = 0) -> bool:
    how = {"state": state, "progress": progress, "detail": "", "address": "a:1", "silent_ms": silent_ms}
    return await mill.do(update_replica, replica_id, **how)


async def test_registering_a_model_again_changes_nothing_and_a_changed_package_is_noted(mill):
    known = await mill.do(get_model, "tide")
    same = {
        "name": "tide",
        "digest": known.digest,
        "manifest_json": known.manifest_json,
        "package_path": known.package_path,
    }
    assert not await mill.do(register_model, **same)
    assert await mill.do(register_model, **same | {"digest": "f" * 64})
    assert (await mill.do(get_model, "tide")).digest == "f" * 64
    assert [record.name for record in await mill.do(list_models)] == ["tide"]
    with pytest.raises(ModelNotFoundError, match="ebb"):
        await mill.do(get_model, "ebb")
    with pytest.raises(ModelNotFoundError, match="ebb"):
        await mill.do(want_model, "ebb")


async def test_a_model_with_open_sessions_is_stopped_only_by_force(mill):
    await mill.start_session("tide")
    with pytest.raises(ModelInUseError, match="tide has 1 open session: "):
        await mill.do(stop_model, "tide")
    await mill.do(stop_model, "tide", force=True)


async def test_a_replica_registers_only_for_the_assignment_that_it_was_started_for(placed):
    assert not await register(placed, "r1", epoch=2)
    assert not await register(placed, "r2", host="b")
    assert await register(placed, "r3")
    assert await placed.do(replicas_of_host, "a") == {"r3"}
    await placed.do(stop_model, "tide")
    assert not await register(placed, "r4")


@pytest.mark.rule("S3")
async def test_sessions_are_billed_from_the_first_ready_replica_to_the_loss_of_the_last(placed):
    session_id = await placed.start_session("tide")
    await register(placed, "r1")
    await register(placed, "r2")
    for state, progress in ((ReplicaState.LOADING, 0.3), (ReplicaState.WARMING, 0.9)):
        await be(placed, state, "r1", progress)
        assert not await placed.clock_runs(session_id)
    placed.now = 1_000
    await be(placed, ReplicaState.READY, "r1")
    assert await placed.clock_runs(session_id)
    placed.now = 2_000
    await be(placed, ReplicaState.READY, "r2")
    placed.now = 3_000
    await placed.do(remove_replica, "r1")
    assert await placed.clock_runs(session_id)
    placed.now = 4_000
    await be(placed, ReplicaState.DRAINING, "r2")
    assert not await placed.clock_runs(session_id)
    placed.now = 5_000
    await placed.do(remove_replica, "r2")
    assert await placed.billed_ms(session_id) == 3_000


@pytest.mark.rule("S7")
async def test_a_silent_replicas_sessions_are_billed_to_its_last_sign_of_life(placed):
    session_id = await placed.start_session("tide")
    await register(placed)
    placed.now = 1_000
    await be(placed, ReplicaState.READY)
    placed.now = 9_000
    await be(placed, ReplicaState.WARMING, silent_ms=5_000)
    assert await placed.billed_ms(session_id) == 3_000
    placed.now = 20_000
    await be(placed, ReplicaState.READY)
    placed.now = 21_000
    await be(placed, ReplicaState.WARMING, silent_ms=5_000)
    assert await placed.billed_ms(session_id) == 3_000  # and not less


@pytest.mark.rule("S7")
async def test_a_killed_hosts_sessions_are_billed_to_its_last_sign_of_life(placed):
    session_id = await placed.start_session("tide")
    await register(placed)
    placed.now = 1_000
    await be(placed, ReplicaState.READY)
    placed.now = 5_000
    await placed.do(renew_host, "a", 4)
    placed.now = 5_000 + 10 * HOST_LEASE_MS
    assert await placed.do(remove_host, "a") == 1
    assert await placed.billed_ms(session_id) == 4_000
    assert await placed.do(list_replicas) == ()
    assert await placed.do(assignments_of_host, "a") == ()


async def test_a_replica_without_a_record_is_told_that_it_must_end(placed):
    await register(placed)
    await placed.do(remove_host, "a")
    assert not await be(placed, ReplicaState.READY)
    await placed.do(remove_replica, "r", failure="too late")
    assert (await placed.do(get_model, "tide")).failed_starts == 0


async def test_failed_starts_are_counted_rest_ever_longer_and_a_good_one_forgives_them(placed):
    policy = StartPolicy(retry_delays_ms=(1_000, 5_000), failed_delay_ms=60_000)
    for number, delay_ms in ((1, 1_000), (2, 5_000), (3, 60_000)):
        await register(placed)
        await placed.do(remove_replica, "r", failure=f"broken {number}", start_policy=policy)
        record = await placed.do(get_model, "tide")
        assert (record.failed_starts, record.failure) == (number, f"broken {number}")
        assert record.retry_ms == placed.began_ms + placed.now + delay_ms
        (assignment,) = await placed.do(assignments_of_host, "a")
        assert not assignment.may_start
        expected = ModelState.FAILED if number == 3 else ModelState.QUEUED
        assert (await placed.do(get_model_view, "tide")).state is expected
        placed.now += delay_ms
        (assignment,) = await placed.do(assignments_of_host, "a")
        assert assignment.may_start
    await register(placed)
    await be(placed, ReplicaState.READY)
    record = await placed.do(get_model, "tide")
    assert (record.failed_starts, record.failure, record.retry_ms) == (0, None, None)


async def test_wanting_a_failed_model_tries_it_at_once(placed):
    await register(placed)
    await placed.do(remove_replica, "r", failure="broken")
    await placed.do(want_model, "tide")
    (assignment,) = await placed.do(assignments_of_host, "a")
    assert assignment.may_start


async def test_a_view_shows_all_of_a_model_in_one_read(placed):
    await placed.register("ebb")
    await placed.start_session("tide")
    await register(placed, "earlier")
    placed.now = 800
    await be(placed, ReplicaState.READY, "earlier")
    await placed.do(remove_replica, "earlier")
    await register(placed)
    await be(placed, ReplicaState.LOADING, progress=0.25)
    placed.now = 1_000
    ebb, tide = await placed.do(list_model_views)
    assert (await placed.do(get_model_view, "ebb"), await placed.do(get_model_view, "tide")) == (ebb, tide)
    assert (ebb.name, ebb.state, ebb.open_sessions) == ("ebb", ModelState.STOPPED, 0)
    assert (tide.name, tide.state, tide.phase, tide.progress) == ("tide", ModelState.STARTING, "LOADING", 0.25)
    assert (tide.time_to_ready_ms, tide.open_sessions, tide.demand, tide.ready_replicas) == (600, 1, 0, 0)
    await be(placed, ReplicaState.READY)
    tide = await placed.do(get_model_view, "tide")
    assert (tide.state, tide.progress, tide.time_to_ready_ms, tide.ready_replicas) == (ModelState.READY, 1.0, None, 1)
    with pytest.raises(ModelNotFoundError, match="flow"):
        await placed.do(get_model_view, "flow")


async def test_the_last_ten_starts_of_a_model_are_kept_and_no_more(placed):
    for number in range(12):
        await register(placed, f"r{number:02}")
        await be(placed, ReplicaState.READY, f"r{number:02}")
    durations_ms = await placed.do(start_durations_ms)
    assert len(durations_ms["tide"]) == 10
    assert (await placed.do(get_model_view, "tide")).ready_replicas == 12
