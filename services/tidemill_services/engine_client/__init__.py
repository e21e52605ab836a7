"""Speaks the private contract to one replica. Protobuf stays in here.

`ReplicaClient` holds the one stream to a replica; `generate` gives an `EngineStream` for each generation on it.
"""

from tidemill_services.engine_client.client import ReplicaClient
from tidemill_services.engine_client.life import Patience
from tidemill_services.engine_client.sending_cost import SendingCost
from tidemill_services.engine_client.stream import Backlog, EngineStream, OnText
from tidemill_services.engine_client.types import (
    NOBODY,
    EngineFinish,
    EngineOutput,
    EngineRequest,
    OnBehalf,
    ReplicaLoad,
    ReplicaPhase,
    ReplicaRejectedError,
    ReplicaStats,
    ReplicaStatus,
    StartStep,
)

__all__ = [
    "NOBODY",
    "Backlog",
    "EngineFinish",
    "EngineOutput",
    "EngineRequest",
    "EngineStream",
    "OnBehalf",
    "OnText",
    "Patience",
    "ReplicaClient",
    "ReplicaLoad",
    "ReplicaPhase",
    "ReplicaRejectedError",
    "ReplicaStats",
    "ReplicaStatus",
    "SendingCost",
    "StartStep",
]
