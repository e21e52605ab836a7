"""The gRPC server of every port of ours: grpc.aio's, with another way of taking calls.

grpc.aio takes all calls in one loop, which waits for a call of each registered method anew with every call that comes:
with 45 methods that costs a seventh of a plain call. Here each method has a task that takes its calls, and that loop
waits for their end.

grpc.aio reads the path of a method that nobody registered as UTF-8 in that loop. A path that is none, and anybody can
send it, ends the loop and with it the port: every stream is cut and no call is taken any more. Here calls of methods
that nobody registered are refused by a task of their own, and their paths are never read.

One call of a method is taken at a time; the others wait inside gRPC. Of those beyond a thousand, gRPC drops some
at random, and ends calls that waited for 30 s: as CANCELLED, without a reason, and nothing of ours hears of it. Here
they wait until they are taken, and are answered or refused by what serves them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
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
    if not all(hasattr(cygrpc.AioServer, name) for name in ("_make_request_call_future", "_request_registered_call")):
        raise RuntimeError(f"grpcio {grpc.__version__} does not suit this server: it needs 1.84 or 1.85")
    options = (*_UNTAKEN, *options)
    server = grpc.aio.server(interceptors=interceptors, options=options)
    core = _Core(cygrpc.get_working_loop(), tuple(interceptors), options)
    server._server = core  # type: ignore[attr-defined]  # noqa: SLF001 -- gRPC has no other way in
    return server


class _Core(cygrpc.AioServer):  # type: ignore[misc]  # it has no types
    """Takes calls; `_make_request_call_future` is how its loop asks for the next one of a method."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interceptors: tuple[grpc.aio.ServerInterceptor, ...],
        options: tuple[tuple[str, Any], ...],
    ) -> None:
        super().__init__(loop, None, (), interceptors, options, None)
        self._calls_loop = loop
        self._calls_interceptors = interceptors
        self._handlers: dict[str, Any] = {}  # by the path of the method
        self._calls: set[asyncio.Task[None]] = set()

    def add_registered_method_handlers(self, method_handlers: Mapping[str, Any]) -> None:
        """Serve these methods, each by its path."""
        super().add_registered_method_handlers(method_handlers)
        self._handlers.update(method_handlers)

    def resolve_handler(self, details: Any) -> Any:
        """The handler of a call; gRPC asks when the interceptors let it through."""
        return self._handlers.get(details.method)

    def _make_request_call_future(self, method: bytes | None) -> "asyncio.Future[Any]":
        """What takes all calls of a registered method until the server stops; with None, all other calls."""
        if method is None:
            return asyncio.create_task(self._refuse_unregistered(), name="grpc-unregistered")
        return asyncio.create_task(self._take_calls(method), name=f"grpc-{method.decode()}")

    async def _take_calls(self, method: bytes) -> None:
        path, loop = method.decode(), self._calls_loop
        is_too_much = False
        while True:
            call = await self._next(self._request_registered_call, method)
            answer = cygrpc._handle_rpc(path, self, self._calls_interceptors, call, loop, is_too_much)  # noqa: SLF001
            self._serve(answer, call, path)

    async def _refuse_unregistered(self) -> None:
        while True:
            call = await self._next(self._request_call)
            context = cygrpc._ServicerContext(call, None, None, self._calls_loop)  # noqa: SLF001
            answer = context.abort(grpc.StatusCode.UNIMPLEMENTED, "This server has no such method.")
            self._serve(answer, call, "unregistered")

    async def _next(self, request: Callable[..., Awaitable[Any]], *method: bytes) -> Any:
        """The next call; raises as the loop expects of it when the server stops."""
        while True:
            try:
                return await request(*method)
            except cygrpc._RequestCallError:  # noqa: SLF001
                if not self.is_running():
                    raise

    def _serve(self, answer: Coroutine[Any, Any, None], call: Any, path: str) -> None:
        served = cygrpc._schedule_rpc_coro(answer, call, self._calls_loop, path)  # noqa: SLF001
        task = asyncio.create_task(served, name="grpc-call")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
