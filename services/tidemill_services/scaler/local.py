"""The launcher `local`: each replica is a child process on this machine."""

import asyncio
import json
import logging
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from tidemill_services.scaler.child_process import start_child, until_ended
from tidemill_services.scaler.launcher import LaunchedReplica, LaunchFailedError, LaunchSpec, ReplicaExit
from tidemill_services.scaler.replica_log import ReplicaLog
from tidemill_services.scaler.spares import Spares
from tidemill_services.tls.replica_tls import ReplicaTls

logger = logging.getLogger(__name__)

LISTEN_SECONDS = 60.0  # a process that does not listen by then is given up
LAST_WORDS_SECONDS = 5.0  # to read what it said before it ended
_LINE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class LocalLauncherSettings:
    """What every replica of this host is told."""

    threads: int = 0  # that compute in one replica; 0: as many as there are cores
    device: Literal["cpu", "cuda", "fake"] = "cpu"
    fake_tick_ms: int = 5  # how long each step of the fake device takes
    kernels: Literal["auto", "own", "stock"] = "auto"  # that compute on the processor
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    start_cache: Path | None = None  # where replicas keep what makes the next start faster; None: nowhere
    start_cache_mib: int = 8192  # how large it may become
    tls: ReplicaTls | None = None  # None: plaintext, which stays on loopback


class LocalLauncher:
    """Starts replicas as `python -m tidemill_serving`, or has a spare process become one.

    Launch from the thread that lives as long as the process does (the event loop's main thread): the kernel's signal to
    a child at its parent's death is bound to the thread that made the child.
    """

    def __init__(self, settings: LocalLauncherSettings | None = None, spares: Spares | None = None) -> None:
        self._settings = settings or LocalLauncherSettings()
        self._spares = spares

    async def launch(self, spec: LaunchSpec) -> LaunchedReplica:
        """Start a process; see the port."""
        try:
            token_reader, token_writer = os.pipe()
        except OSError as error:
            raise LaunchFailedError(f"The process could not be started: {error}.") from error
        try:
            os.write(token_writer, spec.token.encode())
            replica = self._from_spare(spec, token_reader) or self._from_process(spec, token_reader)
        finally:
            os.close(token_reader)
            os.close(token_writer)
        try:
            await replica.listens()
        except BaseException:
            replica.kill()
            await replica.wait()
            raise
        return replica

    def _from_spare(self, spec: LaunchSpec, token_fd: int) -> "LocalReplica | None":
        """A spare that was told to be this replica; None where none is left that hears it."""
        while self._spares is not None and (spare := self._spares.take()) is not None:
            try:
                spare.become(self._orders(spec), token_fd)
            except OSError:  # it has just ended
                spare.discard()
                continue
            logger.info("replica %s is the spare process %d", spec.replica_id, spare.process.pid)
            return LocalReplica(spare.process, spare.pidfd, spec.replica_id)
        return None

    def _from_process(self, spec: LaunchSpec, token_fd: int) -> "LocalReplica":
        return LocalReplica(*start_child(self._command(spec, token_fd), token_fd), spec.replica_id)

    def _command(self, spec: LaunchSpec, token_fd: int) -> list[str]:
        """What Python runs as a new process."""
        lifeline = ["--token-fd", str(token_fd), "--parent-pid", str(os.getpid())]
        return ["tidemill_serving", *lifeline, *self._orders(spec)]

    def _orders(self, spec: LaunchSpec) -> list[str]:
        """What makes a process this replica, but its token."""
        orders = ["--package", str(spec.package_path), "--listen", "127.0.0.1:0"]
        orders += ["--slots", str(spec.slots), "--device", self._settings.device]
        orders += ["--fake-tick-ms", str(self._settings.fake_tick_ms), "--kernels", self._settings.kernels]
        orders += ["--drain-grace-seconds", f"{spec.drain_grace_seconds:g}"]
        orders += ["--replica-id", spec.replica_id]
        orders += ["--log-format", "json", "--log-level", self._settings.log_level]  # we write its lines into our log
        if self._settings.threads:
            orders += ["--threads", str(self._settings.threads)]
        if self._settings.start_cache is not None:
            orders += ["--start-cache", str(self._settings.start_cache)]
            orders += ["--start-cache-mib", str(self._settings.start_cache_mib)]
        if (tls := self._settings.tls) is not None:
            orders += ["--tls-certificate", str(tls.files.certificate), "--tls-key", str(tls.files.key)]
            orders += ["--tls-client-ca", str(tls.ca)]
        return orders


class LocalReplica:
    """A child process that is a replica."""

    def __init__(self, process: subprocess.Popen[bytes], pidfd: int, replica_id: str) -> None:
        """`pidfd` is the process's file descriptor, which is closed with its end."""
        self._process = process
        self._pidfd = pidfd
        self._replica_id = replica_id
        self._address = ""
        self._log = ReplicaLog(replica_id)
        self._listening = asyncio.get_running_loop().create_future()
        self._ended = asyncio.create_task(self._watch(), name=f"replica-process-{replica_id}")

    @property
    def address(self) -> str:
        """Where it listens; see the port."""
        return self._address

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def listens(self) -> None:
        """Wait until it said where it listens. Raises LaunchFailedError."""
        try:
            async with asyncio.timeout(LISTEN_SECONDS):
                await asyncio.wait({self._listening, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise LaunchFailedError(f"The process did not listen within {LISTEN_SECONDS:.0f} seconds.") from None
        if not self._listening.done():
            raise LaunchFailedError(self._ended.result().reason)
        self._address = self._listening.result()

    async def wait(self) -> ReplicaExit:
        """Return once it has ended."""
        return await asyncio.shield(self._ended)

    def terminate(self) -> None:
        """Have it drain and end."""
        if self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it now, and whatever it started."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _watch(self) -> ReplicaExit:
        """Read what the process says until it ends; nobody else waits for it, or takes its code."""
        readers = [
            asyncio.create_task(_read(self._process.stdout, self._take_address), name=f"stdout-{self._replica_id}"),
            asyncio.create_task(_read(self._process.stderr, self._log.take), name=f"stderr-{self._replica_id}"),
        ]
        try:
            await until_ended(self._pidfd)
            # What it started ends with it; until its code is taken the pid is its own.
            os.killpg(self._process.pid, signal.SIGKILL)
            await asyncio.wait(readers, timeout=LAST_WORDS_SECONDS)
        finally:
            os.close(self._pidfd)
            for reader in readers:
                reader.cancel()
            for failure in await asyncio.gather(*readers, return_exceptions=True):
                if isinstance(failure, Exception):  # it went on unheard, and without an address it is given up
                    logger.warning("replica %s could not be heard: %s", self._replica_id, failure)
        code = self._process.wait()  # it has ended: this only takes the code
        return ReplicaExit(code, self._reason(code))

    def _take_address(self, line: bytes) -> None:
        if self._listening.done():
            return
        try:
            self._listening.set_result(str(json.loads(line)["address"]))
        except (ValueError, KeyError, TypeError):
            logger.warning("replica %s said something else than its address", self._replica_id)

    def _reason(self, code: int) -> str:
        if code == 0:
            return "It ended in order."
        if code < 0:
            return f"The process was ended by {signal.Signals(-code).name}."
        return self._log.last_sentence or f"The process ended with code {code}."


async def _read(pipe: IO[bytes] | None, take_line: Callable[[bytes], None]) -> None:
    """Read lines until the pipe ends; of a very long one only its end is taken."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        unfinished = b""
        while chunk := await reader.read(65_536):
            *lines, unfinished = (unfinished + chunk).split(b"\n")
            unfinished = unfinished[-_LINE_BYTES:]
            for line in lines:
                take_line(line[-_LINE_BYTES:])
        if unfinished:
            take_line(unfinished)
    finally:
        transport.close()
