"""A launch for which no file descriptor is left fails as a launch, and leaves no process that nobody watches."""

import errno
import os
import secrets
from pathlib import Path

import pytest

from tests.integration.scaler.processes import replica_pids
from tidemill_services.scaler.launcher import LaunchFailedError, LaunchSpec
from tidemill_services.scaler.local import LocalLauncher, LocalLauncherSettings

TINY_LLAMA = Path(__file__).parents[2] / "models" / "tiny-llama"
SPEC = LaunchSpec("replica", TINY_LLAMA, 2, 5.0, secrets.token_hex(32))

pytestmark = pytest.mark.fault


def no_descriptor_left(*_: object) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("call", ["pipe", "pidfd_open"])
async def test_a_launch_without_a_file_descriptor_left_fails_as_a_launch(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = LocalLauncher(LocalLauncherSettings(device="fake"))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, no_descriptor_left)
        with pytest.raises(LaunchFailedError, match="Too many open files"):
            await launcher.launch(SPEC)
    assert not replica_pids()
    replica = await launcher.launch(SPEC)  # and the next one works
    replica.kill()
    await replica.wait()
