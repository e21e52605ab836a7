"""Spare processes: they have done a replica's imports, know no model and no token, and wait to be one."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from tidemill_services.scaler.child_process import start_child
from tidemill_services.scaler.launcher import LaunchFailedError

logger = logging.getLogger(__name__)

QUIET_SECONDS = 2.0  # without a launch, before a spare is started in the place of one that was taken
PAUSE_AFTER_FAILURE_SECONDS = 30.0  # spares that end by themselves are not started again and again


class Spare:
    """One such process, watched until it is released."""

    def __init__(self, process: subprocess.Popen[bytes], pidfd: int, orders: socket.socket) -> None:
        """`orders` is our end of the socket that it listens to; whoever has it in the end closes `pidfd`."""
        self.process = process
        self.pidfd = pidfd
        self.is_ready = False
        self.is_taken = False
        self.is_settled = asyncio.Event()  # it is ready, or gone
        self.is_gone = asyncio.Event()  # it ended, or was taken
        self._orders = orders
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(orders.fileno(), self._hear)
        self._loop.add_reader(pidfd, self._end)

    def release(self) -> None:
        """Whoever takes it watches it from now on."""
        self._unwatch()
        self.is_taken = True
        self._end()

    def become(self, arguments: Sequence[str], token_fd: int) -> None:
        """Tell it which replica to be, and hand it the token's pipe. Raises OSError when it does not hear any more."""
        with self._orders:
            socket.send_fds(self._orders, [json.dumps(arguments).encode()], [token_fd])

    def discard(self) -> None:
        """End it; it belongs to nobody any more."""
        self._unwatch()
        self._orders.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with self.process:  # closes its pipes, and waits: it was killed
            os.close(self.pidfd)

    def _hear(self) -> None:
        self._loop.remove_reader(self._orders.fileno())
        with suppress(OSError):
            self.is_ready = bool(self._orders.recv(1))
        if self.is_ready:
            self.is_settled.set()

    def _end(self) -> None:
        self.is_settled.set()
        self.is_gone.set()

    def _unwatch(self) -> None:
        for fd in (self._orders.fileno(), self.pidfd):
            if fd >= 0:
                self._loop.remove_reader(fd)


class Spares:
    """Keeps so many ready while it runs, in the thread that launches; see `LocalLauncher`."""

    def __init__(self, num_wanted: int, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._num_wanted = num_wanted
        self._quiet_seconds = quiet_seconds
        self._ready: list[Spare] = []
        self._last_failure: dict[str, str] | None = None
        self._launched = asyncio.Event()

    @property
    def num_ready(self) -> int:
        """Those that could be taken now."""
        return len(self._ready)

    @property
    def pids(self) -> list[int]:
        """The processes of these."""
        return [spare.process.pid for spare in self._ready]

    def told(self) -> dict[str, object]:
        """What the administrator's page says: how many there shall be and are, and why the last one failed that did."""
        return {"wanted": self._num_wanted, "ready": self.num_ready, "last_failure": self._last_failure}

    def take(self) -> Spare | None:
        """One that is ready, released; None without one. It is replaced when nothing was launched for a while."""
        self._launched.set()
        if not self._ready:
            return None
        spare = self._ready.pop()
        spare.release()
        return spare

    async def run(self) -> None:
        """Keep them until cancelled; then they end."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._num_wanted):
                group.create_task(self._keep_one(), name=f"spare-{number}")

    async def _keep_one(self) -> None:
        while True:
            await self._until_quiet()
            try:
                was_taken = await self._start_and_offer()
            except (OSError, LaunchFailedError) as error:
                logger.warning("there is no spare replica: %s", error)
                self._note_failure(str(error))
                was_taken = False
            if not was_taken:
                await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)

    async def _until_quiet(self) -> None:
        with suppress(TimeoutError):
            while True:
                self._launched.clear()
                async with asyncio.timeout(self._quiet_seconds):
                    await self._launched.wait()

    async def _start_and_offer(self) -> bool:
        """Keep a new one until it is taken, which is True, or has ended. Raises OSError, LaunchFailedError."""
        spare = _start()
        try:
            await spare.is_settled.wait()
            if spare.is_ready:
                self._ready.append(spare)
                logger.info("a spare replica is ready: process %d", spare.process.pid)
            await spare.is_gone.wait()
        finally:
            if spare in self._ready:
                self._ready.remove(spare)
            if not spare.is_taken:
                spare.discard()
        if not spare.is_taken:
            logger.warning("a spare replica ended with code %d", spare.process.returncode)
            self._note_failure(f"The process ended with code {spare.process.returncode}.")
        return spare.is_taken

    def _note_failure(self, reason: str) -> None:
        self._last_failure = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "reason": f"{reason.rstrip('.')}.",
        }


def _start() -> Spare:
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            arguments = ["tidemill_serving", "--spare", str(theirs.fileno()), "--parent-pid", str(os.getpid())]
            process, pidfd = start_child(arguments, theirs.fileno())
        except LaunchFailedError:
            ours.close()
            raise
    ours.setblocking(False)
    return Spare(process, pidfd, ours)
