"""The gRPC server of every port of ours: grpc.aio's, without the request that ends it.

grpc.aio reads the path of a method that nobody registered as UTF-8, in the one loop that takes all calls. One that is
none, and anybody can send it, ends that loop and with it the port: every stream is cut and no call is taken any more.
Here calls of methods that nobody registered are refused beside that loop, and their paths are never read.

That loop takes one call of a method at a time; the others wait inside gRPC. Of those beyond a thousand, gRPC drops some
at random, and ends calls that waited for 30 s: as CANCELLED, without a reason, and nothing of ours hears of it. Here
they wait until they are taken, and are answered or refused by what serves them.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # it has no types

MAX_UNTAKEN_CALLS = 10_000  # of one method; gRPC holds about 16 KiB for each
_MAX_UNTAKEN_SECONDS = 86_400  # a call's own deadline ends it before
_UNTAKEN = (
    # One limit: between two, gRPC would refuse at random.
    ("grpc.server.max_pending_requests", MAX_UNTAKEN_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", MAX_UNTAKEN_CALLS),
    ("grpc.server_max_unrequested_time_in_server", _MAX_UNTAKEN_SECONDS),
)


def aio_server(
    interceptors: Sequence[grpc.aio.ServerInterceptor], options: Sequence[tuple[str, Any]]
) -> grpc.aio.Server:
    """As `grpc.aio.server`. All methods must be registered, as generated code does it.

    Raises RuntimeError with a gRPC whose loop does not ask as ours expects: such a port would stand open.
    """
    if not hasattr(cygrpc.AioServer, "_make_request_call_future"):
        raise RuntimeError(f"grpcio {grpc.__version__} does not suit this server: it needs 1.84 or 1.85")
    options = (*_UNTAKEN, *options)
    server = grpc.aio.server(interceptors=interceptors, options=options)
    core = _Core(cygrpc.get_working_loop(), None, (), tuple(interceptors), options, None)
    server._server = core  # type: ignore[attr-defined]  # noqa: SLF001 -- gRPC has no other way in
    return server


class _Core(cygrpc.AioServer):  # type: ignore[misc]  # it has no types
    """Takes calls; `_make_request_call_future` is how its loop asks for the next one."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._refusals: set[asyncio.Task[None]] = set()

    def _make_request_call_future(self, method: bytes | None) -> "asyncio.Future[Any]":
        """The next call of a registered method; with None, what answers all other calls until the server stops."""
        if method is not None:
            future: asyncio.Future[Any] = super()._make_request_call_future(method)
            return future
        return asyncio.create_task(self._refuse_unregistered(), name="grpc-unregistered")

    async def _refuse_unregistered(self) -> None:
        while True:
            try:
                call = await self._request_call()
            except cygrpc._RequestCallError:  # noqa: SLF001
                if not self.is_running():
                    raise  # as the loop expects of it when the server stops
                continue
            loop = asyncio.get_running_loop()
            context = cygrpc._ServicerContext(call, None, None, loop)  # noqa: SLF001
            answer = context.abort(grpc.StatusCode.UNIMPLEMENTED, "This server has no such method.")
            served = cygrpc._schedule_rpc_coro(answer, call, loop, "unregistered")  # noqa: SLF001
            task = asyncio.create_task(served, name="grpc-refusal")
            self._refusals.add(task)
            task.add_done_callback(self._refusals.discard)
