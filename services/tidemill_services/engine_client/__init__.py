"""Speaks the private contract to one replica. Protobuf stays in here.

`ReplicaClient` holds the one stream to a replica; `generate` gives an `EngineStream` for each generation on it.
"""

from tidemill_services.engine_client.client import Patience, ReplicaClient
from tidemill_services.engine_client.stream import Backlog, EngineStream
from tidemill_services.engine_client.types import (
    NO_LIFE_SECONDS,
    EngineFinish,
    EngineOutput,
    EngineRequest,
    ReplicaLoad,
    ReplicaPhase,
    ReplicaRejectedError,
    ReplicaStatus,
)

__all__ = [
    "NO_LIFE_SECONDS",
    "Backlog",
    "EngineFinish",
    "EngineOutput",
    "EngineRequest",
    "EngineStream",
    "Patience",
    "ReplicaClient",
    "ReplicaLoad",
    "ReplicaPhase",
    "ReplicaRejectedError",
    "ReplicaStatus",
]
