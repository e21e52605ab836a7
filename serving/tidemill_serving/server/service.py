"""The private contract as served: one stream per control process, and Drain."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import grpc
import grpc.aio

from tidemill.engine.v1 import engine_pb2 as pb
from tidemill.engine.v1 import engine_pb2_grpc
from tidemill_serving.server.caller import Caller
from tidemill_serving.server.reading import UNREADABLE
from tidemill_serving.server.switchboard import Switchboard

_log = logging.getLogger(__name__)
_DEFAULT_GRACE_SECONDS = 30.0
_MAX_GRACE_SECONDS = 3600.0

_Context: TypeAlias = "grpc.aio.ServicerContext[pb.ConnectRequest, pb.ConnectResponse]"


class EngineService(engine_pb2_grpc.EngineServiceServicer):
    """Moves messages between the wire and the switchboard."""

    def __init__(self, switchboard: Switchboard, drain: Callable[[float], None]) -> None:
        self._switchboard = switchboard
        self._drain = drain

    async def Connect(  # type: ignore[override]  # noqa: N802 -- the contract's name; grpc.aio takes coroutines too
        self, request_iterator: AsyncIterator[pb.ConnectRequest | None], context: _Context
    ) -> None:
        """See engine.proto."""
        caller = self._switchboard.connect()
        _log.info("a control process connected; %d in all", self._switchboard.num_callers)
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(caller, request_iterator), name="caller-reader")
                while (message := await caller.next_message()) is not None:
                    await context.write(message)
                reader.cancel()
        finally:
            # Also when the caller vanished: gRPC then cancels this coroutine.
            self._switchboard.disconnect(caller)
            _log.info("a control process left; %d remain", self._switchboard.num_callers)
        if caller.is_unreadable:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, UNREADABLE)
        if caller.overflowed:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "This stream was read too slowly; its sequences were aborted."
            )

    async def _read(self, caller: Caller, requests: AsyncIterator[pb.ConnectRequest | None]) -> None:
        async for request in requests:
            if request is None:
                caller.is_unreadable = True
                break
            if request.HasField("submit"):
                self._switchboard.submit(caller, request.submit)
            elif request.HasField("abort"):
                self._switchboard.abort(caller, request.abort.sequence_id)
            for submit in request.more_submits:
                self._switchboard.submit(caller, submit)
        # The caller has nothing more to say that we could read, so nobody would abort what still runs.
        self._switchboard.disconnect(caller)
        caller.close()

    async def Drain(  # noqa: N802 -- the contract's name
        self, request: pb.DrainRequest, _context: "grpc.aio.ServicerContext[pb.DrainRequest, pb.DrainResponse]"
    ) -> pb.DrainResponse:
        """See engine.proto."""
        asked = request.grace.seconds + request.grace.nanos / 1e9
        self._drain(min(max(0.0, asked), _MAX_GRACE_SECONDS) if request.HasField("grace") else _DEFAULT_GRACE_SECONDS)
        return pb.DrainResponse()
