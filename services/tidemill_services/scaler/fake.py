"""The launcher `fake`: replicas that are nothing but their states, in this process, moved on by whoever tests."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tidemill_services.domain.errors import ReplicaLostError
from tidemill_services.engine_client import (
    NOBODY,
    Backlog,
    EngineRequest,
    EngineStream,
    OnBehalf,
    ReplicaLoad,
    ReplicaPhase,
    ReplicaRejectedError,
    ReplicaStats,
    ReplicaStatus,
)
from tidemill_services.scaler.launcher import LaunchedReplica, LaunchFailedError, LaunchSpec, ReplicaExit

SIGKILL = 9


@dataclass(slots=True)
class FakeLauncher:
    """Starts fake replicas; `replicas` holds all that were ever started, in order."""

    loads_at_once: bool = True  # else each stays LOADING until it is told `become_ready`
    broken: dict[Path, str] = field(default_factory=dict)  # packages that cannot be launched, and why
    replicas: list["FakeReplica"] = field(default_factory=list)

    @property
    def running(self) -> list["FakeReplica"]:
        """Those that have not ended."""
        return [replica for replica in self.replicas if not replica.has_ended]

    async def launch(self, spec: LaunchSpec) -> LaunchedReplica:
        """Start a replica; see the port."""
        await asyncio.sleep(0)
        if spec.package_path in self.broken:
            raise LaunchFailedError(self.broken[spec.package_path])
        replica = FakeReplica(f"fake:{len(self.replicas) + 1}", spec)
        self.replicas.append(replica)
        if self.loads_at_once:
            replica.become_ready()
        return replica

    def connect(self, address: str, token: str, /) -> "FakeConnection":
        """A connection to a replica that this launcher started."""
        return FakeConnection(next(replica for replica in self.replicas if replica.address == address), token)


class FakeReplica:
    """A replica that does nothing but be in a state."""

    def __init__(self, address: str, spec: LaunchSpec) -> None:
        self.spec = spec
        self._address = address
        self._exit: asyncio.Future[ReplicaExit] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()
        self.num_cuts = 0
        self.lingers = False  # once it is drained its port is closed, and the process goes on until `leave`
        self._status = ReplicaStatus(
            ReplicaPhase.LOADING, 0.0, "", responsive=True, connected=True, load=ReplicaLoad(num_slots=spec.slots)
        )

    @property
    def address(self) -> str:
        """A name that no network knows."""
        return self._address

    @property
    def has_ended(self) -> bool:
        """Whether its process would be gone."""
        return self._exit.done()

    @property
    def status(self) -> ReplicaStatus:
        """How it is."""
        return self._status

    def become_ready(self) -> None:
        """Finish loading."""
        self.show(phase=ReplicaPhase.READY, progress=1.0)

    def fail(self, reason: str) -> None:
        """End because the model could not be loaded."""
        self.show(phase=ReplicaPhase.FAILED, detail=reason)
        self._end(ReplicaExit(1, reason))

    def show(self, **changes: object) -> None:
        """Change fields of its status."""
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        self._changed.set()
        self._changed = asyncio.Event()

    def cut(self) -> None:
        """Break every connection to it; the replica lives on."""
        self.num_cuts += 1
        self.show()

    async def wait(self) -> ReplicaExit:
        """Return once it has ended."""
        return await asyncio.shield(self._exit)

    def terminate(self) -> None:
        """End in order; nothing runs in it that would have to finish."""
        if self.lingers:
            self.show(connected=False)
        else:
            self.leave()

    def leave(self) -> None:
        """End as one does that was drained."""
        self._end(ReplicaExit(0, "It was drained."))

    def kill(self) -> None:
        """End at once."""
        self._end(ReplicaExit(-SIGKILL, "It was killed."))

    @property
    def next_change(self) -> asyncio.Event:
        """Set at the next change of its status."""
        return self._changed

    def _end(self, replica_exit: ReplicaExit) -> None:
        if not self._exit.done():
            self._exit.set_result(replica_exit)
            self.show(connected=False, responsive=False)


class FakeConnection:
    """A connection to a fake replica. It has no engine: it rejects every generation."""

    num_buffered_bytes = 0

    def __init__(self, replica: FakeReplica, token: str) -> None:
        self._replica = replica
        self._token = token
        self._num_cuts = replica.num_cuts
        self._is_closed = False

    @property
    def status(self) -> ReplicaStatus:
        """How the replica is."""
        if self._is_closed or self._num_cuts != self._replica.num_cuts:
            return replace(self._replica.status, responsive=False, connected=False)
        return self._replica.status

    @property
    def stats(self) -> ReplicaStats:
        """It has no engine that would do anything."""
        return ReplicaStats()

    async def open(self) -> None:
        """Connect. Raises ReplicaLostError when the replica has ended, takes no one or the token is another."""
        if not self._replica.status.connected or self._token != self._replica.spec.token:
            raise ReplicaLostError

    async def close(self) -> None:
        """Disconnect."""
        self._is_closed = True

    async def statuses(self) -> AsyncIterator[ReplicaStatus]:
        """Yield the status now and at each change."""
        while True:
            changed, status = self._replica.next_change, self.status
            yield status
            if not status.connected:
                return
            await changed.wait()

    def generate(self, request: EngineRequest, on_behalf: OnBehalf = NOBODY) -> EngineStream:
        """Reject it."""
        stream = EngineStream(0, lambda _: None, lambda _: None, Backlog())
        stream.fail(ReplicaRejectedError(f"A fake replica has no engine for {len(request.prompt_tokens)} tokens."))
        return stream
