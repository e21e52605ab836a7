"""Spare processes that are killed, taken, forgotten: none is left, and what is launched runs all the same."""

import asyncio
import logging
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.scaler.platform import eventually
from tests.integration.scaler.processes import replica_pids, spare_pids
from tests.integration.scaler.spare_processes import SPARE_SECONDS, running_spares
from tidemill_services.engine_client import ReplicaClient
from tidemill_services.scaler import spares as spares_module
from tidemill_services.scaler.launcher import LaunchFailedError, LaunchSpec
from tidemill_services.scaler.local import LocalLauncher, LocalLauncherSettings
from tidemill_services.scaler.spares import Spare, Spares

TINY_LLAMA = Path(__file__).parents[2] / "models" / "tiny-llama"

pytestmark = pytest.mark.fault


def reason_of_last_failure(spares: Spares) -> str:
    failure = spares.told()["last_failure"]
    assert isinstance(failure, dict)
    return str(failure["reason"])


def spec() -> LaunchSpec:
    return LaunchSpec(f"tiny-{secrets.token_hex(4)}", TINY_LLAMA, 2, 5.0, secrets.token_hex(32))


async def test_a_spare_becomes_the_replica_and_another_takes_its_place() -> None:
    async with running_spares(1) as spares:
        (spare,) = spares.pids
        launcher = LocalLauncher(LocalLauncherSettings(device="fake"), spares)
        wanted = spec()
        replica = await launcher.launch(wanted)
        assert replica.pid == spare
        await eventually(lambda: spares.num_ready == 1, seconds=SPARE_SECONDS)
        assert spares.pids != [spare]
        connection = ReplicaClient(replica.address, wanted.token)
        await connection.open()
        await connection.close()
        replica.terminate()
        assert (await replica.wait()).code == 0
    assert not replica_pids()


async def test_what_a_spare_says_once_it_is_a_replica_is_named_by_it(caplog: pytest.LogCaptureFixture) -> None:
    async with running_spares(1) as spares:
        launcher = LocalLauncher(LocalLauncherSettings(device="fake"), spares)
        wanted = spec()
        with caplog.at_level(logging.INFO):
            replica = await launcher.launch(wanted)
            replica.terminate()
            await replica.wait()
    said = [record for record in caplog.records if record.name.startswith("tidemill_serving")]
    assert said
    assert {record.fields["replica"] for record in said} == {wanted.replica_id}


async def test_a_spare_holds_no_token_and_knows_none_of_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_API_KEY", "of the server alone")
    async with running_spares(1) as spares:
        (spare,) = spares.pids
        folder = Path("/proc") / str(spare)
        assert b"TIDEMILL_" not in (folder / "environ").read_bytes()
        assert b"token" not in (folder / "cmdline").read_bytes()
        pipes = [link for link in (folder / "fd").iterdir() if str(link.readlink()).startswith("pipe:")]
        assert {link.name for link in pipes} == {"1", "2"}


async def test_a_killed_spare_is_not_given_out_and_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares_module, "PAUSE_AFTER_FAILURE_SECONDS", 0.0)
    async with running_spares(1) as spares:
        (spare,) = spares.pids
        os.kill(spare, signal.SIGKILL)
        await eventually(lambda: spares.pids not in ([], [spare]), seconds=SPARE_SECONDS)
        assert reason_of_last_failure(spares) == "The process ended with code -9."
        replica = await LocalLauncher(LocalLauncherSettings(device="fake"), spares).launch(spec())
        replica.kill()
        await replica.wait()
    assert not replica_pids()


async def test_a_spare_that_has_just_died_does_not_fail_the_launch() -> None:
    async with running_spares(2, quiet_seconds=0.1) as spares:
        launcher = LocalLauncher(LocalLauncherSettings(device="fake"), spares)
        dead = set(spares.pids)
        for pid in dead:
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 -- before our loop hears of it
        replica = await launcher.launch(spec())
        assert replica.pid not in dead
        replica.kill()
        await replica.wait()
    assert not replica_pids()


async def test_a_spare_that_cannot_be_started_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Spare:
        raise LaunchFailedError("The process could not be started: [Errno 12] Cannot allocate memory.")

    monkeypatch.setattr(spares_module, "_start", refuse)
    spares = Spares(1, quiet_seconds=0.0)
    running = asyncio.create_task(spares.run(), name="spares")
    await eventually(lambda: spares.told()["last_failure"] is not None, seconds=SPARE_SECONDS)
    assert (spares.told()["wanted"], spares.told()["ready"]) == (1, 0)
    assert reason_of_last_failure(spares) == "The process could not be started: [Errno 12] Cannot allocate memory."
    running.cancel()
    await asyncio.wait({running})


async def test_without_spares_none_is_started() -> None:
    async with running_spares(0):
        await asyncio.sleep(0.2)
        assert not spare_pids()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_spares_die_with_the_process_that_keeps_them(number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.fault.launcher.spare_parent"], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    pids = spare_pids(parent.pid)
    assert len(pids) == 2
    ends = [os.pidfd_open(pid) for pid in pids]
    parent.send_signal(number)
    parent.wait(60)
    parent.stdout.close()
    asyncio.run(_all_end(ends))


async def _all_end(pidfds: list[int]) -> None:
    for pidfd in pidfds:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(pidfd, ended.set)
        async with asyncio.timeout(60):
            await ended.wait()
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
