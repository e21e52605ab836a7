"""What every call passes before its servicer: who calls and what they may, what an error becomes, what is counted.

Default is to deny: a method is served without a key only when it is listed here.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, aclosing
from contextvars import ContextVar
from typing import Any, TypeAlias

import grpc
from grpc_status import rpc_status

from tidemill_services.access import METHODS, Counting, check_access
from tidemill_services.api.connection_calls import ConnectionCalls
from tidemill_services.api.parsing import open_handler, parse, parsing_each, parsing_one
from tidemill_services.api.slow_readers import PatientWriter
from tidemill_services.api.statuses import code_of, status_of
from tidemill_services.calls import REQUEST_ID_HEADER, Call, Calls
from tidemill_services.domain.errors import (
    ApiKeyMissingError,
    DrainingError,
    NotServedError,
    TidemillError,
)
from tidemill_services.faults import forget_frames, log_fault
from tidemill_services.identity import Caller, Identities
from tidemill_services.metrics import Metrics
from tidemill_services.metrics.calls import CallMetrics
from tidemill_services.usage_limits import UsageGuard
from tidemill_telemetry.call_record import CallRecord
from tidemill_telemetry.tracing import Attributes

OPEN_SERVICES = ("/grpc.health.v1.Health/",)
REFLECTION_SERVICES = ("/grpc.reflection.v1alpha.ServerReflection/", "/grpc.reflection.v1.ServerReflection/")

# Those for which a server's span is marked as failed; the others are the caller's.
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})

_caller: ContextVar[Caller] = ContextVar("caller")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
Context = grpc.aio.ServicerContext[Any, Any]
Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]


def current_caller() -> Caller:
    """Who makes the call that this code serves."""
    return _caller.get()


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Identity, access, limits, errors, metrics and the log around each call."""

    def __init__(
        self,
        identities: Identities,
        guard: UsageGuard,
        metrics: Metrics,
        calls: Calls,
        *,
        open_reflection: bool,
        max_streams: int,
        reader_patience_seconds: float,
    ) -> None:
        """`max_streams` is of one connection."""
        self._identities = identities
        self._guard = guard
        self._connection_calls = ConnectionCalls(max_streams)
        self._metrics = metrics.calls
        self._calls = calls
        self._open = OPEN_SERVICES + (REFLECTION_SERVICES if open_reflection else ())
        self._reader_patience_seconds = reader_patience_seconds
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}  # by method, of those that there are
        self.is_draining = False

    def drain(self) -> None:
        """Refuse new calls from now on."""
        self.is_draining = True

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Wrap the method's handler, whatever its kind; each is wrapped once."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler: Any = await continuation(handler_call_details)  # typed for the sync API only
            if handler is None:
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> "grpc.RpcMethodHandler[Any, Any]":
        # Requests are parsed behind the key's check: what is no message is then refused as any wrong request.
        if method.startswith(self._open):
            return open_handler(handler, method)  # type: ignore[no-any-return]
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler), response_serializer=handler.response_serializer
            )
        if handler.unary_stream is not None:
            behavior = parsing_one(handler.unary_stream, handler.request_deserializer)
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, behavior), response_serializer=handler.response_serializer
            )
        behavior = parsing_each(handler.stream_stream, handler.request_deserializer)
        return grpc.stream_stream_rpc_method_handler(
            self._stream(method, behavior), response_serializer=handler.response_serializer
        )

    def _unary(self, method: str, handler: Any) -> Callable[..., Any]:
        async def call(request: Any, context: Context) -> Any:
            metadata: Metadata = context.invocation_metadata() or ()  # each asking makes them anew
            outcome = self._arrive(method, metadata)
            try:
                with self._running(method, context):
                    await self._let_in(method, metadata, outcome.record)
                    response = await handler.unary_unary(parse(request, handler.request_deserializer), context)
                    outcome.succeed(context)
                    return response
            except asyncio.CancelledError:
                outcome.cancelled()
                raise
            except Exception as error:  # noqa: BLE001 -- the door is where every error becomes a status
                request = None  # grpc.aio keeps the error that ends a call, and so this frame
                await outcome.refuse(error, context)
            finally:
                outcome.count()

        return call

    def _stream(self, method: str, behavior: Callable[[Any, Context], AsyncGenerator[Any]]) -> Callable[..., Any]:
        async def call(request: Any, context: Context) -> None:
            metadata: Metadata = context.invocation_metadata() or ()  # each asking makes them anew
            outcome = self._arrive(method, metadata)
            try:
                with self._running(method, context):
                    await self._let_in(method, metadata, outcome.record)
                    with PatientWriter(context.write, self._reader_patience_seconds) as writer:
                        async with aclosing(behavior(request, context)) as responses:
                            async for response in responses:
                                await writer.write(response)
                    outcome.succeed(context)
            except asyncio.CancelledError:
                outcome.cancelled()
                raise
            except Exception as error:  # noqa: BLE001 -- the door is where every error becomes a status
                request = None  # grpc.aio keeps the error that ends a call, and so this frame
                await outcome.refuse(error, context)
            finally:
                outcome.count()

        return call

    def _arrive(self, method: str, metadata: Metadata) -> "_Outcome":
        return _Outcome(self._metrics, method, self._calls.begin(method, metadata))

    def _running(self, method: str, context: Context) -> AbstractContextManager[None]:
        """Have the call count as one of its connection's."""
        access = METHODS.get(method)
        is_limited = access is None or access.counting is not Counting.NOWHERE
        return self._connection_calls.running(context.peer(), is_limited=is_limited)

    async def _let_in(self, method: str, metadata: Metadata, record: CallRecord) -> None:
        """Find who calls, and whether they may; count the call."""
        if self.is_draining:
            raise DrainingError(retry_after_seconds=1)
        caller = await self._identities.identify(_api_key(metadata))
        record.account = caller.account_id
        counting = check_access(caller, METHODS.get(method), method).counting
        if counting is Counting.DOOR or (counting is Counting.USERS and not caller.is_admin):
            await self._guard.count_request(caller)
        _caller.set(caller)


def _api_key(metadata: Metadata) -> str:
    for key, value in metadata:
        if key == "authorization":
            text = value if isinstance(value, str) else value.decode("ascii", "replace")
            scheme, _, rest = text.strip().partition(" ")
            return rest.strip() if scheme.lower() == "bearer" else text.strip()
    raise ApiKeyMissingError


class _Outcome:
    """How one call ended; told once."""

    def __init__(self, metrics: CallMetrics, method: str, call: Call) -> None:
        self._metrics = metrics
        self._method = method
        self._call = call
        self._code = "OK"
        self._reason = ""
        metrics.begin(method)

    @property
    def record(self) -> CallRecord:
        return self._call.record

    def succeed(self, context: Context) -> None:
        context.set_trailing_metadata(self._own_metadata())

    async def refuse(self, error: Exception, context: Context) -> None:
        if isinstance(error, NotImplementedError):
            refusal: TidemillError = NotServedError()
        else:
            refusal = error if isinstance(error, TidemillError) else log_fault(error, self._method)
        self._code, self._reason = code_of(refusal).name, refusal.reason
        status = rpc_status.to_status(status_of(refusal, self._method))
        metadata = (*status.trailing_metadata, *self._own_metadata())
        forget_frames(error)
        await context.abort(status.code, status.details, metadata)

    def cancelled(self) -> None:
        self._code = "CANCELLED"

    def count(self) -> None:
        self._metrics.end(self._method, self._code, self._reason, self._call.seconds)
        self._call.end(self._code, self._reason, self._describe, is_fault=self._code in _FAULTS)

    def _own_metadata(self) -> tuple[tuple[str, str], ...]:
        return ((REQUEST_ID_HEADER, self.record.request_id),)

    def _describe(self) -> Attributes:
        return {
            "rpc.system.name": "grpc",
            "rpc.method": self._method.removeprefix("/"),
            "rpc.response.status_code": self._code,
        }
