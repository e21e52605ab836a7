"""A replica: one running process that serves one model."""

from dataclasses import dataclass
from enum import StrEnum


class ReplicaState(StrEnum):
    """Where a replica is in its life. When it has ended, its record ends too."""

    LAUNCHING = "LAUNCHING"  # its process is being started
    LOADING = "LOADING"  # files are read and the graph is built
    WARMING = "WARMING"  # a first generation warms it
    READY = "READY"  # it answers
    DRAINING = "DRAINING"  # it finishes what runs


STARTING_STATES = (ReplicaState.LAUNCHING, ReplicaState.LOADING, ReplicaState.WARMING)


@dataclass(frozen=True, slots=True)
class ReplicaRecord:
    """A replica as the store knows it. Times are milliseconds since 1970."""

    replica_id: str
    model: str
    host_id: str
    epoch: int  # of the assignment that it was started for
    address: str | None  # host:port or https://host:port, once the process listens
    state: ReplicaState
    progress: float  # 0 to 1 within the whole start
    detail: str
    create_ms: int
    ready_ms: int | None
