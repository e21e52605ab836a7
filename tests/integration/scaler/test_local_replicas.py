"""The whole chain with real replica processes: store, scaler, host, launcher, leases, generations."""

import asyncio
import logging
import os
import shutil
import signal
from pathlib import Path

import pytest
import uvloop

from tests.integration.scaler.platform import WAIT, Platform, eventually, manifest_json, platform
from tests.integration.scaler.processes import replica_pids
from tests.kernels import needs_kernels
from tidemill_models.package import load_package
from tidemill_services.domain.errors import ModelFailedError, ReplicaLostError
from tidemill_services.domain.model import ModelState
from tidemill_services.engine_client import EngineRequest, EngineStream
from tidemill_services.scaler.local import LocalLauncher, LocalLauncherSettings
from tidemill_services.store.models import register_model, stop_model

TINY_LLAMA = Path(__file__).parents[2] / "models" / "tiny-llama"
LAUNCHER = LocalLauncher(LocalLauncherSettings(threads=1))
SLOW_LAUNCHER = LocalLauncher(LocalLauncherSettings(device="fake"))  # 5 ms a token: 3 s for LONG
VERY_SLOW_LAUNCHER = LocalLauncher(LocalLauncherSettings(device="fake", fake_tick_ms=50))  # 30 s for LONG
LONG = EngineRequest([1, 5, 9], 600)


async def register(mill: Platform, package: Path = TINY_LLAMA) -> None:
    """Make the package known under the name `tide`."""
    manifest = load_package(TINY_LLAMA).manifest.to_json() if package is TINY_LLAMA else manifest_json()
    await mill.database.write(
        register_model, name="tide", digest="1" * 64, manifest_json=manifest, package_path=str(package)
    )


async def _read_on(stream: EngineStream) -> None:
    async for _ in stream:
        pass


async def generate(mill: Platform, max_tokens: int = 8) -> int:
    """Run one generation; return how many tokens it made."""
    async with mill.replicas.lease("tide", "account", wait=WAIT) as lease:
        num_tokens = 0
        async for output in lease.client.generate(EngineRequest([1, 5, 9], max_tokens)):
            num_tokens += output.num_tokens
        return num_tokens


async def test_a_sleeping_model_wakes_answers_and_rests_without_a_trace(tmp_path):
    async with platform(tmp_path, LAUNCHER) as mill:
        await register(mill)
        assert (await mill.view("tide")).state is ModelState.STOPPED
        counts = await asyncio.gather(*(generate(mill) for _ in range(20)))
        assert all(1 <= count <= 8 for count in counts)
        assert len(replica_pids()) == 1
        view = await mill.view("tide")
        assert (view.state, view.ready_replicas) == (ModelState.READY, 1)
        await mill.until_unused("tide")
        await mill.database.write(stop_model, "tide")
        await mill.until("tide", ModelState.STOPPED)
        assert not replica_pids()
        assert (await mill.view("tide")).time_to_ready_ms > 0  # from the one start


@pytest.mark.parametrize("kernels", ["stock", pytest.param("own", marks=needs_kernels)])
async def test_a_replica_computes_with_the_kernels_that_its_host_is_set_to(tmp_path, caplog, kernels):
    caplog.set_level(logging.INFO)
    async with platform(tmp_path, LocalLauncher(LocalLauncherSettings(threads=1, kernels=kernels))) as mill:
        await register(mill)
        assert await generate(mill) >= 1
    (line,) = [line for line in caplog.messages if line.startswith("it runs on onnxruntime")]
    assert ("kernels" in line) is (kernels == "own")


async def test_a_replica_killed_in_mid_stream_is_replaced_and_who_waits_is_served(tmp_path):
    async with platform(tmp_path, VERY_SLOW_LAUNCHER) as mill:
        await register(mill)
        async with mill.replicas.lease("tide", "account", wait=WAIT) as lease:
            stream = lease.client.generate(LONG)
            await anext(stream)
            (killed,) = replica_pids()
            os.kill(killed, signal.SIGKILL)
            with pytest.raises(ReplicaLostError):
                await asyncio.wait_for(_read_on(stream), 60)
            async with asyncio.timeout(60):
                assert await generate(mill) >= 1
        assert killed not in replica_pids()


async def test_a_drain_lets_a_running_stream_finish(tmp_path):
    async with platform(tmp_path, SLOW_LAUNCHER) as mill:
        await register(mill)
        async with mill.replicas.lease("tide", "account", wait=WAIT) as lease:
            stream = lease.client.generate(LONG)
            await anext(stream)
            draining = asyncio.create_task(mill.host.drain())
            last = None
            async for output in stream:
                last = output
            assert last is not None
            assert (last.finish_reason, last.num_completion_tokens) == ("length", 600)
        await draining
        assert not replica_pids()


async def test_a_drain_while_the_store_is_away_still_lets_a_running_stream_finish(tmp_path):
    async with platform(tmp_path, SLOW_LAUNCHER, drains=False) as mill:
        await register(mill)
        async with mill.replicas.lease("tide", "account", wait=WAIT) as lease:
            stream = lease.client.generate(LONG)
            await anext(stream)
            mill.database.is_away = True
            draining = asyncio.create_task(mill.host.drain())
            last = None
            async for output in stream:
                last = output
            assert last is not None
            assert (last.finish_reason, last.num_completion_tokens) == ("length", 600)
        await draining
        assert not replica_pids()


async def test_a_broken_package_fails_after_three_tries_with_the_reason(tmp_path):
    package = tmp_path / "broken"
    shutil.copytree(TINY_LLAMA, package)
    (package / "model.onnx").write_bytes(b"not a graph")
    async with platform(tmp_path, LAUNCHER) as mill:
        await register(mill, package)
        with pytest.raises(ModelFailedError, match=r"tide could not be started: .*model\.onnx"):
            await generate(mill)
        view = await mill.view("tide")
        assert (view.state, view.record.failed_starts) == (ModelState.FAILED, 3)
        assert not replica_pids()


async def test_a_replica_that_dies_while_nobody_needs_it_stays_away_once_stopped(tmp_path):
    async with platform(tmp_path, LAUNCHER) as mill:
        await register(mill)
        await generate(mill)
        await mill.until_unused("tide")
        (pid,) = replica_pids()
        os.kill(pid, signal.SIGKILL)
        await mill.database.write(stop_model, "tide")
        await eventually(lambda: mill.host.num_replicas == 0)
        assert (await mill.until("tide", ModelState.STOPPED)).ready_replicas == 0


def test_the_launcher_works_in_the_event_loop_that_the_server_uses(tmp_path):
    async def run() -> None:
        async with platform(tmp_path, LAUNCHER) as mill:
            await register(mill)
            assert await generate(mill) >= 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    assert not replica_pids()
