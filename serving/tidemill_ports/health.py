"""gRPC's standard health service, as every port of ours has it; it is asked without a key.

grpcio-health-checking's own holds a lock while it writes to a watcher, so that one who takes nothing keeps the status
from being changed, and a server from stopping; and it forgets all watchers of a service with the first that leaves.
"""

import asyncio
from typing import TypeAlias

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

Status: TypeAlias = health_pb2.HealthCheckResponse.ServingStatus.ValueType

_Context: TypeAlias = "grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]"


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no types
    """Says how each service is. Used from the event loop only."""

    def __init__(self) -> None:
        self._statuses: dict[str, Status] = {}
        self._changed = asyncio.Event()  # set, and replaced, at each change

    def show(self, service: str, status: Status) -> None:
        """Say this of a service from now on."""
        self._statuses[service] = status
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(  # noqa: N802 -- the contract's name
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> health_pb2.HealthCheckResponse:
        """How a service is now; NOT_FOUND of one that nothing was said of."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: _Context) -> None:  # noqa: N802 -- the same
        """How it is, and again when that has changed; who takes it slowly hears the newest only."""
        told: Status | None = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            await changed.wait()
