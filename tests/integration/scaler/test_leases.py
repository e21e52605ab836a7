"""Leases on a platform whose replicas are fake: what happens, not how long it takes."""

import asyncio
import random

import pytest

from tests.integration.scaler.platform import QUICK_RETRIES, WAIT, eventually, fake_platform, platform
from tidemill_services.domain.errors import ModelColdError, ModelFailedError, QueueFullError, WaitExceededError
from tidemill_services.domain.generation import WaitPolicy
from tidemill_services.domain.model import ModelState
from tidemill_services.domain.scaling import StartPolicy
from tidemill_services.scaler import keeper
from tidemill_services.scaler.fake import SIGKILL, FakeLauncher
from tidemill_services.store.models import stop_model, want_model
from tidemill_services.store.replicas import list_replicas, register_replica


async def test_a_cold_model_is_started_once_for_many_waiting_requests(tmp_path):
    async with fake_platform(tmp_path) as (mill, launcher):
        await mill.register("tide")
        served = 0

        async def generate(number: int) -> None:
            nonlocal served
            async with mill.replicas.lease("tide", f"account-{number % 7}", wait=WAIT):
                served += 1
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(generate(number))
        assert served == 200
        assert len(launcher.replicas) == 1
        assert mill.replicas.counts()["tide"].num_leased == 0


async def test_a_replica_gets_no_more_leases_than_it_has_slots_and_two(tmp_path):
    async with fake_platform(tmp_path) as (mill, _):
        await mill.register("tide", slots=3)
        most = running = 0

        async def generate() -> None:
            nonlocal most, running
            async with mill.replicas.lease("tide", "account", wait=WAIT):
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.001)
                running -= 1

        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(generate())
        assert most == 5


async def test_a_failing_start_is_tried_three_times_and_then_refuses_who_waits(tmp_path):
    async with fake_platform(tmp_path, loads_at_once=False) as (mill, launcher):
        await mill.register("tide")

        async def fail_each() -> None:
            failed = 0
            while True:
                await eventually(lambda: len(launcher.replicas) > failed)  # noqa: B023
                launcher.replicas[failed].fail("the graph is broken")
                failed += 1

        failing = asyncio.create_task(fail_each())
        with pytest.raises(ModelFailedError, match="tide could not be started: the graph is broken") as refused:
            async with mill.replicas.lease("tide", "account", wait=WAIT):
                pass
        failing.cancel()
        assert len(launcher.replicas) == QUICK_RETRIES.max_tries
        assert 0 < refused.value.retry_after_seconds <= 60
        view = await mill.view("tide")
        assert (view.state, view.failure) == (ModelState.FAILED, "the graph is broken")
        with pytest.raises(ModelFailedError):
            async with mill.replicas.lease("tide", "account", wait=WAIT):
                pass


async def test_a_killed_replica_is_replaced_and_who_waits_is_served(tmp_path):
    async with fake_platform(tmp_path) as (mill, launcher):
        await mill.register("tide", slots=1)
        async with mill.replicas.lease("tide", "account", wait=WAIT) as first:
            launcher.replicas[0].kill()
            async with mill.replicas.lease("tide", "account", wait=WAIT) as second:
                assert second.replica_id != first.replica_id
        assert len(launcher.replicas) == 2


async def test_a_replica_whose_connection_breaks_is_reached_again_and_not_replaced(tmp_path):
    async with fake_platform(tmp_path) as (mill, launcher):
        await mill.register("tide")
        async with mill.replicas.lease("tide", "account", wait=WAIT) as first:
            launcher.replicas[0].cut()
        async with mill.replicas.lease("tide", "account", wait=WAIT) as second:
            assert second.replica_id == first.replica_id
            assert second.client is not first.client
        assert len(launcher.running) == len(launcher.replicas) == 1


async def test_a_replica_that_is_lost_while_its_engine_shows_no_life_is_replaced(tmp_path):
    async with fake_platform(tmp_path) as (mill, launcher):
        await mill.register("tide")
        async with mill.replicas.lease("tide", "account", wait=WAIT) as first:
            launcher.replicas[0].show(responsive=False)
            waiting = asyncio.create_task(_leased_replica(mill))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            launcher.replicas[0].cut()
            assert await waiting != first.replica_id
        assert launcher.replicas[0].has_ended


async def test_two_accounts_share_a_saturated_replica_fairly(tmp_path):
    async with fake_platform(tmp_path) as (mill, _):
        await mill.register("tide", slots=1)
        order: list[str] = []

        async def generate(account: str) -> None:
            async with mill.replicas.lease("tide", account, wait=WAIT):
                order.append(account)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for account in ["greedy"] * 60 + ["modest"] * 6:
                group.create_task(generate(account))
        last_modest = max(number for number, account in enumerate(order) if account == "modest")
        assert order.count("modest") == 6
        assert last_modest < 20  # in turn: 6 of its own, and about as many of the other's


@pytest.mark.rule("S25")
async def test_an_outage_of_the_store_ends_nothing_that_runs(tmp_path):
    async with fake_platform(tmp_path) as (mill, launcher):
        await mill.register("tide")
        async with mill.replicas.lease("tide", "account", wait=WAIT) as first:
            mill.database.is_away = True
            await asyncio.sleep(0.3)
            async with mill.replicas.lease("tide", "account", wait=WAIT) as second:
                assert second.replica_id == first.replica_id
            launcher.replicas[0].kill()  # noticed, and noted when the store is back
            await asyncio.sleep(0.3)
            mill.database.is_away = False
            async with mill.replicas.lease("tide", "account", wait=WAIT) as third:
                assert third.replica_id != first.replica_id


async def test_a_process_that_was_killed_clears_up_after_itself_in_its_next_life(tmp_path):
    killed = FakeLauncher()
    async with platform(tmp_path, killed, killed.connect, drains=False) as mill:
        await mill.register("tide")
        await _leased_replica(mill)
        assert (await mill.view("tide")).ready_replicas == 1
    async with fake_platform(tmp_path) as (mill, launcher):
        assert (await mill.view("tide")).ready_replicas == 0
        async with mill.replicas.lease("tide", "account", wait=WAIT) as lease:
            assert lease.replica_id == launcher.replicas[0].spec.replica_id


async def test_fail_fast_on_a_cold_model_says_so_and_wakes_it(tmp_path):
    async with fake_platform(tmp_path) as (mill, _):
        await mill.register("tide")
        with pytest.raises(ModelColdError) as refused:
            async with mill.replicas.lease("tide", "account", wait=WaitPolicy(fail_fast=True)):
                pass
        assert refused.value.retry_after_seconds > 0
        await mill.until("tide", ModelState.READY)
        async with mill.replicas.lease("tide", "account", wait=WaitPolicy(fail_fast=True)):
            pass


async def test_fail_fast_on_a_saturated_model_says_that_all_places_are_taken(tmp_path):
    async with fake_platform(tmp_path) as (mill, launcher):
        await mill.register("tide")
        async with mill.replicas.lease("tide", "account", wait=WAIT):
            full = launcher.replicas[0].status.load
            launcher.replicas[0].show(load=type(full)(num_running=8, num_waiting=2, num_slots=8))
            with pytest.raises(QueueFullError) as refused:
                async with mill.replicas.lease("tide", "account", wait=WaitPolicy(fail_fast=True)):
                    pass
            assert refused.value.retry_after_seconds == 1.0


async def test_a_wait_ends_at_its_limit_and_leaves_no_trace(tmp_path):
    async with fake_platform(tmp_path, loads_at_once=False) as (mill, _):
        await mill.register("tide")
        with pytest.raises(WaitExceededError, match=r"tide was waited for 0\.05 s"):
            async with mill.replicas.lease("tide", "account", wait=WaitPolicy(max_wait_seconds=0.05)):
                pass
        assert mill.replicas.counts()["tide"].num_waiting == 0


async def test_a_cancelled_wait_leaves_no_trace(tmp_path):
    async with fake_platform(tmp_path, loads_at_once=False) as (mill, launcher):
        await mill.register("tide", slots=1)
        waiting = [asyncio.create_task(_hold(mill, asyncio.Event())) for _ in range(20)]
        await eventually(lambda: mill.replicas.counts()["tide"].num_waiting == 20)
        await eventually(lambda: len(launcher.replicas) == 1)
        for task in waiting[::2]:
            task.cancel()
        launcher.replicas[0].become_ready()
        for task in waiting[::2]:
            task.cancel()
        await eventually(lambda: mill.replicas.counts()["tide"].num_leased == 3)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        counts = mill.replicas.counts()["tide"]
        assert (counts.num_waiting, counts.num_leased) == (0, 0)


async def test_the_queue_of_a_model_is_bounded(tmp_path):
    async with fake_platform(tmp_path, loads_at_once=False, max_waiting=3) as (mill, _):
        await mill.register("tide")
        waiting = [asyncio.create_task(_hold(mill, asyncio.Event())) for _ in range(3)]
        await eventually(lambda: mill.replicas.counts()["tide"].num_waiting == 3)
        with pytest.raises(QueueFullError, match="3 requests wait for tide already") as refused:
            async with mill.replicas.lease("tide", "account", wait=WAIT):
                pass
        assert refused.value.retry_after_seconds == 1.0
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)


async def test_a_stop_cancels_a_start_and_sends_away_who_waits(tmp_path):
    async with fake_platform(tmp_path, loads_at_once=False) as (mill, launcher):
        await mill.register("tide")
        await mill.database.write(want_model, "tide")
        waiting = asyncio.create_task(_hold(mill, asyncio.Event()))
        await mill.until("tide", ModelState.STARTING)
        await eventually(lambda: len(launcher.replicas) == 1)
        await mill.database.write(stop_model, "tide")
        with pytest.raises(ModelColdError, match="was stopped"):
            await waiting
        await eventually(lambda: launcher.replicas[0].has_ended)
        await mill.until("tide", ModelState.STOPPED)
        assert len(launcher.replicas) == 1


async def test_what_waits_is_told_the_phase_and_progress_of_the_start(tmp_path):
    async with fake_platform(tmp_path, loads_at_once=False) as (mill, launcher):
        await mill.register("tide")
        waiting = asyncio.create_task(_hold(mill, asyncio.Event()))
        await eventually(lambda: len(launcher.replicas) == 1)
        launcher.replicas[0].show(progress=0.5)
        await eventually(lambda: mill.replicas.waiting_status("tide").progress == 0.5)
        status = mill.replicas.waiting_status("tide")
        assert (status.model_state, status.phase, status.queue_position) == (ModelState.STARTING, "LOADING", 0)
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_cancels_at_random_points_leave_every_place_free(tmp_path):
    chance = random.Random(7)
    async with fake_platform(tmp_path) as (mill, launcher):
        await mill.register("tide", slots=2)

        async def generate(number: int) -> None:
            async with mill.replicas.lease("tide", f"account-{number % 3}", wait=WAIT):
                await asyncio.sleep(chance.random() / 200)

        for _ in range(10):
            tasks = [asyncio.create_task(generate(number)) for number in range(100)]
            for task in chance.sample(tasks, 60):
                await asyncio.sleep(chance.random() / 1_000)
                task.cancel()
            await asyncio.wait(tasks)
        counts = mill.replicas.counts()["tide"]
        assert (counts.num_waiting, counts.num_leased) == (0, 0)
        assert len(launcher.replicas) == 1


async def _leased_replica(mill) -> str:
    async with mill.replicas.lease("tide", "account", wait=WAIT) as lease:
        return lease.replica_id


async def _hold(mill, until: asyncio.Event) -> None:
    async with mill.replicas.lease("tide", "account", wait=WAIT):
        await until.wait()


@pytest.mark.rule("S7")
async def test_no_session_is_billed_while_the_replica_shows_no_life(tmp_path):
    async with fake_platform(tmp_path) as (mill, launcher):
        await mill.register("tide")
        await _leased_replica(mill)
        launcher.replicas[0].show(responsive=False)
        await mill.until("tide", ModelState.STARTING)
        assert (await mill.view("tide")).ready_replicas == 0
        launcher.replicas[0].show(responsive=True)
        await mill.until("tide", ModelState.READY)
        assert len(launcher.replicas) == 1


async def test_a_replica_that_shows_no_life_is_not_waited_for_when_it_is_to_end(tmp_path):
    async with fake_platform(tmp_path) as (mill, launcher):
        await mill.register("tide")
        await _leased_replica(mill)
        launcher.replicas[0].show(responsive=False)
        await mill.until("tide", ModelState.STARTING)
        await mill.until_unused("tide")
        await mill.database.write(stop_model, "tide")
        assert (await launcher.replicas[0].wait()).code == -SIGKILL


async def test_a_replica_that_was_drained_may_take_its_time_to_end(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(keeper, "RECONNECT_SECONDS", 0.001)
    async with fake_platform(tmp_path) as (mill, launcher):
        await mill.register("tide")
        await _leased_replica(mill)
        replica = launcher.replicas[0]
        replica.lingers = True
        await mill.until_unused("tide")
        await mill.database.write(stop_model, "tide")
        await eventually(lambda: not replica.status.connected)
        await asyncio.sleep(0.3)
        assert not replica.has_ended
        replica.leave()
        assert (await replica.wait()).code == 0
        await mill.until("tide", ModelState.STOPPED)
    assert "was lost" not in caplog.text


async def test_a_replica_that_dies_right_after_it_was_ready_is_not_restarted_at_once(tmp_path):
    policy = StartPolicy(retry_delays_ms=(300, 600), failed_delay_ms=60_000)
    async with fake_platform(tmp_path, start_policy=policy) as (mill, launcher):
        await mill.register("tide")
        await mill.database.write(want_model, "tide")
        await mill.until("tide", ModelState.READY)
        killed_ms = await mill.database.read(lambda tx: tx.now_ms)
        launcher.replicas[0].kill()
        await eventually(lambda: len(launcher.replicas) == 2)
        await mill.until("tide", ModelState.READY)
        again = max((await mill.database.read(list_replicas)), key=lambda replica: replica.create_ms)
        assert again.create_ms >= killed_ms + policy.retry_delays_ms[0]
        assert len(launcher.replicas) == 2


async def test_a_record_that_no_process_of_the_host_stands_behind_is_forgotten(tmp_path):
    async with fake_platform(tmp_path) as (mill, _):
        await mill.register("tide")
        await mill.database.write(want_model, "tide")
        await mill.until("tide", ModelState.READY)
        (record,) = await mill.database.read(list_replicas)
        ghost = {"replica_id": "ghost", "model": "tide", "host_id": record.host_id, "epoch": record.epoch}
        assert await mill.database.write(register_replica, **ghost)
        for _ in range(100):
            if await mill.database.read(list_replicas) == (record,):
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the ghost is still there")
