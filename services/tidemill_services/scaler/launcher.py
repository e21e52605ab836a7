"""The port to what starts replicas. One contract suite runs against every implementation."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tidemill_services.engine_client import (
    NOBODY,
    EngineRequest,
    EngineStream,
    OnBehalf,
    ReplicaStats,
    ReplicaStatus,
)


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """A replica that is to be started."""

    replica_id: str
    package_path: Path
    slots: int  # generations that it runs at once
    drain_grace_seconds: float  # what still runs is cut after it
    token: str = field(repr=False)  # what its callers present, see `replica_token`


@dataclass(frozen=True, slots=True)
class ReplicaExit:
    """How a replica ended."""

    code: int  # 0 when it ended in order; negative: the signal that killed it
    reason: str  # a sentence


class LaunchFailedError(Exception):
    """A replica could not be started; the message is the reason for people."""


class LaunchedReplica(Protocol):
    """A replica whose process listens; its model is not loaded yet."""

    @property
    def address(self) -> str:
        """Where it listens: host:port, or https://host:port when it speaks TLS."""

    async def wait(self) -> ReplicaExit:
        """Return once it has ended; fine for several callers and afterwards."""

    def terminate(self) -> None:
        """Let it finish what runs, within its grace, and end. Repeats are fine, also when it has ended."""

    def kill(self) -> None:
        """End it now. Repeats are fine, also when it has ended."""


class Launcher(Protocol):
    """Starts replicas. What it started never outlives this process."""

    async def launch(self, spec: LaunchSpec) -> LaunchedReplica:
        """Start a replica and return when it listens; a cancelled launch leaves nothing. Raises LaunchFailedError."""


class ReplicaConnection(Protocol):
    """What the scaler needs of `ReplicaClient`; see there."""

    @property
    def status(self) -> ReplicaStatus:
        """How the replica is, as it said last."""

    @property
    def stats(self) -> ReplicaStats:
        """What its engine has done, as it said last."""

    @property
    def num_buffered_bytes(self) -> int:
        """What came from there and waits for its readers."""

    async def open(self) -> None:
        """Connect. Raises ReplicaLostError."""

    async def close(self) -> None:
        """End the connection, and with it what runs on it."""

    def statuses(self) -> AsyncIterator[ReplicaStatus]:
        """Yield the status now and at each change; the last one is not `connected`."""

    def generate(self, request: EngineRequest, on_behalf: OnBehalf = NOBODY) -> EngineStream:
        """Start a generation."""


class Connect(Protocol):
    """Makes a connection that is not open yet."""

    def __call__(self, address: str, token: str, /) -> ReplicaConnection:
        """For the replica at `address`, with the token that it was launched with."""


def replica_token(launcher_secret: bytes, replica_id: str) -> str:
    """The token of a replica, 64 hex digits: every control process that has the secret knows it, and none stores it."""
    return hmac.new(launcher_secret, replica_id.encode(), hashlib.sha256).hexdigest()
