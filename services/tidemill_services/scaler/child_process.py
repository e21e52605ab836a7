"""How this process starts children, and hears of their end."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tidemill_services.scaler.launcher import LaunchFailedError


def start_child(arguments: Sequence[str], fd: int) -> tuple[subprocess.Popen[bytes], int]:
    """Start `python -m …` with one file descriptor of ours; return it and its pidfd. Raises LaunchFailedError."""
    try:
        # Not through the event loop: uvloop would fork, and gRPC's threads do not bear that. This one spawns.
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            pass_fds=(fd,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(os.environ),
            start_new_session=True,  # a Ctrl-C in our terminal is for us alone; we drain the replicas then
        )
    except OSError as error:
        raise LaunchFailedError(f"The process could not be started: {error}.") from error
    return process, _pidfd(process)


async def until_ended(pidfd: int) -> None:
    """Wait until a child of ours has ended; its code is still to be taken."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a replica inherits: all but our own settings, which hold keys and addresses that it need not know."""
    return {name: value for name, value in environ.items() if not name.startswith("TIDEMILL_")}


def _pidfd(process: subprocess.Popen[bytes]) -> int:
    """The file descriptor that tells of a child's end. Raises LaunchFailedError, and the child has ended then."""
    try:
        return os.pidfd_open(process.pid)
    except OSError as error:  # most likely no descriptor is left; nobody could watch the child
        with process:
            os.killpg(process.pid, signal.SIGKILL)
        raise LaunchFailedError(f"The process could not be watched: {error}.") from error
