"""The keeper of one replica on this host: launches it, follows it, ends it, and keeps its record."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tidemill_services.domain.errors import ReplicaLostError, StoreUnavailableError
from tidemill_services.domain.replica import ReplicaState
from tidemill_services.domain.scaling import StartPolicy
from tidemill_services.engine_client import ReplicaPhase, ReplicaStatus
from tidemill_services.scaler.launcher import Connect, LaunchedReplica, Launcher, LaunchFailedError, LaunchSpec
from tidemill_services.scaler.start_steps import StartSteps
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.hosts import Assignment
from tidemill_services.store.replicas import register_replica, remove_replica, update_replica
from tidemill_telemetry.logs import about

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 0.5
NUM_CONNECTS = 3  # in a row that may fail before a living process is given up
STORE_RETRY_SECONDS = 0.5
NUM_LAST_STORE_TRIES = 10  # once the replica has to end
STOP_ROUTING_SECONDS = 2.0  # for the store to say that it drains; what still comes is rejected, and leased again
KILL_AFTER_GRACE_SECONDS = 5.0
MIN_LIFE_SECONDS = (
    10.0  # one that ends sooner after READY counts as a failed start, so that it is not restarted at once
)

_STATES = {
    ReplicaPhase.LOADING: ReplicaState.LOADING,
    ReplicaPhase.WARMING: ReplicaState.WARMING,
    ReplicaPhase.READY: ReplicaState.READY,
    ReplicaPhase.DRAINING: ReplicaState.DRAINING,
}


OnStarted = Callable[[Mapping[str, float]], None]  # seconds of each step of a start, once a replica is ready


@dataclass(frozen=True, slots=True)
class HostPorts:
    """What a keeper works with; the same for all of a host."""

    database: Database
    launcher: Launcher
    connect: Connect
    start_policy: StartPolicy
    on_started: OnStarted


class ReplicaKeeper:
    """Keeps one replica from its registration to its end."""

    def __init__(self, ports: HostPorts, host_id: str, assignment: Assignment, spec: LaunchSpec) -> None:
        self.model = assignment.model
        self.replica_id = spec.replica_id
        self.is_registered = False
        self._ports = ports
        self._host_id = host_id
        self._epoch = assignment.epoch
        self._spec = spec
        self._ending = asyncio.Event()
        self._lost_record = asyncio.Event()
        self._noting = asyncio.Lock()  # states are noted in their order
        self._start = StartSteps()
        self._ready_at: float | None = None  # when it first was, on the clock of `time.monotonic`
        self._is_responsive = True  # as it said last; lost while it was not, it is given up
        self._last_life: float | None = None  # on the clock of `time.monotonic`; None while it is responsive
        self._failure = ""
        self._log = logging.LoggerAdapter(logger, about({"replica": self.replica_id, "model": self.model}))
        self._written: tuple[ReplicaState, float, str] | None = None

    @property
    def is_ending(self) -> bool:
        """Whether it was told to end."""
        return self._ending.is_set()

    @property
    def was_ready(self) -> bool:
        """Whether ending it now would interrupt generations."""
        return self._ready_at is not None

    def end(self) -> None:
        """Drain the replica, or cancel its start."""
        self._ending.set()

    def end_now(self) -> None:
        """Kill the replica: the store does not know it any more."""
        self._lost_record.set()
        self._ending.set()

    async def run(self) -> None:
        """Keep the replica until it has ended, for whatever reason."""
        self.is_registered = await self._write(
            register_replica,
            replica_id=self.replica_id,
            model=self.model,
            host_id=self._host_id,
            epoch=self._epoch,
        )
        if not self.is_registered:
            return
        try:
            failure = await self._launch_and_follow()
        except LaunchFailedError as error:
            failure = str(error)
        if failure:
            self._log.warning("replica %s of %s could not be started: %s", self.replica_id, self.model, failure)
        await self._write(remove_replica, self.replica_id, failure=failure, start_policy=self._ports.start_policy)

    async def _launch_and_follow(self) -> str:
        """Return why the start failed; empty when it did not, or was cancelled."""
        process = await self._launch()
        if process is None:
            return ""
        try:
            async with asyncio.TaskGroup() as group:
                follower = group.create_task(self._follow(process), name=f"follow-{self.replica_id}")
                ender = group.create_task(self._end_when_told(process), name=f"end-{self.replica_id}")
                ended = await process.wait()
                follower.cancel()
                ender.cancel()
        finally:
            process.kill()
            await process.wait()
        self._log.info("replica %s of %s ended: %s", self.replica_id, self.model, ended.reason)
        if self.is_ending or (self._ready_at is not None and time.monotonic() - self._ready_at > MIN_LIFE_SECONDS):
            return ""
        return self._failure or ended.reason

    async def _launch(self) -> LaunchedReplica | None:
        """Start the process; None when it was told to end before it listened."""
        self._start.begin()
        launching = asyncio.create_task(self._ports.launcher.launch(self._spec), name=f"launch-{self.replica_id}")
        told = asyncio.create_task(self._ending.wait(), name=f"told-{self.replica_id}")
        try:
            await asyncio.wait({launching, told}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _abandon(launching)
            raise
        finally:
            told.cancel()
        if launching.done():
            process = launching.result()
            self._start.note("launch")
            return process
        await _abandon(launching)
        return None

    async def _follow(self, process: LaunchedReplica) -> None:
        """Note each change of the replica's status; give it up when it is alive and does not answer.

        One that was told to end closes its port before it ends: from then on only its grace is watched.
        """
        num_failed = 0
        while num_failed < NUM_CONNECTS and self._is_responsive:
            num_failed += 1
            connection = self._ports.connect(process.address, self._spec.token)
            try:
                await connection.open()
            except ReplicaLostError as error:
                self._log.warning("replica %s: %s", self.replica_id, error)
            else:
                try:
                    async for status in connection.statuses():
                        self._last_life = status.last_life
                        if status.connected:
                            num_failed = 0
                            self._start.note("connect")
                            await self._note(status, process)
                finally:
                    await connection.close()
                if self.is_ending and self._is_responsive:
                    return
                if self.was_ready:  # its sessions are not billed while nobody can reach it
                    await self._write_state(ReplicaState.WARMING, 0.0, "It is not connected.", process)
            await asyncio.sleep(RECONNECT_SECONDS)
        self._failure = self._failure or "It does not answer."
        process.kill()

    async def _note(self, status: ReplicaStatus, process: LaunchedReplica) -> None:
        if status.responsive != self._is_responsive:
            what = "shows life again" if status.responsive else "shows no life: what ran there has ended"
            self._log.warning("replica %s %s", self.replica_id, what)
        self._is_responsive = status.responsive
        if status.phase is ReplicaPhase.FAILED:
            self._failure = status.detail  # it ends by itself now
            return
        if status.phase is ReplicaPhase.READY and not status.responsive:
            await self._write_state(ReplicaState.WARMING, 0.0, "Its engine shows no life.", process)
            return
        if status.phase is ReplicaPhase.READY and self._ready_at is None and not self.is_ending:
            self._tell_of_start(status)
        await self._write_state(_STATES[status.phase], status.progress, status.detail, process)

    def _tell_of_start(self, status: ReplicaStatus) -> None:
        seconds = self._start.at_ready(status.start_steps)
        self._ports.on_started(seconds)
        steps = ", ".join(f"{step} {taken:.3f}" for step, taken in seconds.items() if step != "total")
        self._log.info(
            "replica %s of %s was ready after %.3f s: %s", self.replica_id, self.model, seconds["total"], steps
        )

    async def _write_state(self, state: ReplicaState, progress: float, detail: str, process: LaunchedReplica) -> None:
        async with self._noting:
            now = (ReplicaState.DRAINING if self.is_ending else state, round(progress, 2), detail)
            if now == self._written:
                return
            if state is ReplicaState.READY and self._ready_at is None:
                self._ready_at = time.monotonic()
            last_life = self._last_life

            def note(tx: Transaction) -> bool:  # which may be tried for as long as the store is away
                silent_ms = 0 if last_life is None else round((time.monotonic() - last_life) * 1000)
                return update_replica(
                    tx,
                    self.replica_id,
                    state=now[0],
                    progress=now[1],
                    detail=detail,
                    address=process.address,
                    silent_ms=silent_ms,
                )

            try:
                is_known = await self._write(note)
            except StoreUnavailableError:
                return  # it ends, and is not noted any more
            self._written = now
        if not is_known:
            self._log.warning("replica %s was given up by the leader: it is killed", self.replica_id)
            self.end_now()

    async def _end_when_told(self, process: LaunchedReplica) -> None:
        """Drain a replica that answers; kill one that has not begun, shows no life, or takes too long."""
        await self._ending.wait()
        if self.was_ready and self._is_responsive and not self._lost_record.is_set():
            try:
                async with asyncio.timeout(STOP_ROUTING_SECONDS):
                    await self._write_state(ReplicaState.DRAINING, 1.0, "It finishes what runs.", process)
            except TimeoutError:
                self._log.warning("the store is away: replica %s drains without saying so", self.replica_id)
            process.terminate()
            grace = self._spec.drain_grace_seconds + KILL_AFTER_GRACE_SECONDS
            try:
                async with asyncio.timeout(grace):
                    await self._lost_record.wait()
            except TimeoutError:
                self._log.warning("replica %s did not end within %.0f s: it is killed", self.replica_id, grace)
        process.kill()

    async def _write(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Write, however long the store is away; once the replica has to end, for a few seconds only."""
        num_tries = 0
        while True:
            try:
                return await self._ports.database.write(unit, *args, **kwargs)
            except StoreUnavailableError:
                num_tries += 1
                if self.is_ending and num_tries >= NUM_LAST_STORE_TRIES:
                    raise
                await asyncio.sleep(STORE_RETRY_SECONDS)


async def _abandon(launching: asyncio.Task[LaunchedReplica]) -> None:
    """Cancel a launch, and end what it may have started in the same moment."""
    launching.cancel()
    await asyncio.wait({launching})
    if not launching.cancelled() and launching.exception() is None:
        launching.result().kill()
