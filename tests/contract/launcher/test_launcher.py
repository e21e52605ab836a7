"""What every launcher must hold, fake and real alike."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.scaler.processes import replica_pids, spare_pids
from tests.integration.scaler.spare_processes import running_spares
from tidemill_services.domain.errors import ReplicaLostError
from tidemill_services.engine_client import ReplicaClient, ReplicaPhase
from tidemill_services.scaler.fake import FakeLauncher
from tidemill_services.scaler.launcher import Connect, Launcher, LaunchFailedError, LaunchSpec
from tidemill_services.scaler.local import LocalLauncher, LocalLauncherSettings

TINY_LLAMA = Path(__file__).parents[2] / "models" / "tiny-llama"


@dataclass
class Given:
    """A launcher, what connects to its replicas, and a package that it cannot serve."""

    launcher: Launcher
    connect: Connect
    broken_package: Path

    def spec(self, package: Path = TINY_LLAMA) -> LaunchSpec:
        """A replica to be started."""
        return LaunchSpec(f"tiny-{secrets.token_hex(4)}", package, 2, 5.0, secrets.token_hex(32))


@pytest.fixture(params=["fake", "local", "local with spares"])
async def given(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Given]:
    if request.param == "fake":
        fake = FakeLauncher(broken={tmp_path: "model.toml is missing."})
        yield Given(fake, fake.connect, tmp_path)
    elif request.param == "local":
        yield Given(LocalLauncher(LocalLauncherSettings(device="fake")), ReplicaClient, tmp_path)
    else:
        async with running_spares(1) as spares:
            yield Given(LocalLauncher(LocalLauncherSettings(device="fake"), spares), ReplicaClient, tmp_path)


async def test_a_launched_replica_becomes_ready_and_says_its_slots(given: Given) -> None:
    spec = given.spec()
    replica = await given.launcher.launch(spec)
    connection = given.connect(replica.address, spec.token)
    try:
        await connection.open()
        async with asyncio.timeout(60):
            async for status in connection.statuses():
                if status.phase is ReplicaPhase.READY:
                    break
        assert connection.status.takes_generations
        assert connection.status.load.num_slots == 2
    finally:
        await connection.close()
        replica.kill()
        await replica.wait()


async def test_a_replica_takes_only_its_own_token(given: Given) -> None:
    replica = await given.launcher.launch(given.spec())
    connection = given.connect(replica.address, "0" * 64)
    with pytest.raises(ReplicaLostError):
        await connection.open()
    replica.kill()
    await replica.wait()


async def test_a_terminated_replica_ends_in_order(given: Given) -> None:
    spec = given.spec()
    replica = await given.launcher.launch(spec)
    replica.terminate()
    assert (await replica.wait()).code == 0
    replica.terminate()
    replica.kill()
    assert (await replica.wait()).code == 0


async def test_a_killed_replica_ends_and_its_connection_hears_of_it(given: Given) -> None:
    spec = given.spec()
    replica = await given.launcher.launch(spec)
    connection = given.connect(replica.address, spec.token)
    await connection.open()
    replica.kill()
    assert (await replica.wait()).code == -9
    async with asyncio.timeout(60):
        async for status in connection.statuses():
            if not status.connected:
                break
    await connection.close()


async def test_replicas_of_one_package_live_apart(given: Given) -> None:
    first, second = await asyncio.gather(given.launcher.launch(given.spec()), given.launcher.launch(given.spec()))
    assert first.address != second.address
    first.kill()
    await first.wait()
    second.terminate()
    assert (await second.wait()).code == 0


async def test_what_cannot_be_served_says_why(given: Given) -> None:
    spec = given.spec(given.broken_package)
    try:
        replica = await given.launcher.launch(spec)
    except LaunchFailedError as error:
        reason = str(error)
    else:
        ended = await replica.wait()
        assert ended.code > 0
        reason = ended.reason
    assert "model.toml" in reason
    assert "missing" in reason


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.02, 0.1])
async def test_a_cancelled_launch_leaves_nothing(given: Given, seconds: float) -> None:
    spares = replica_pids()
    launching = asyncio.create_task(given.launcher.launch(given.spec()))
    await asyncio.sleep(seconds)
    launching.cancel()
    try:
        replica = await launching  # it was there already
        replica.kill()
        await replica.wait()
    except asyncio.CancelledError:
        assert not replica_pids() & spares
        assert replica_pids() <= spare_pids()  # one that takes the other's place
        assert not isinstance(given.launcher, FakeLauncher) or not given.launcher.running
