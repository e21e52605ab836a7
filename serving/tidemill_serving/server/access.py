"""Who may call: whoever carries the launcher's token."""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import grpc
import grpc.aio

from tidemill_serving.server.reading import reading

_HEALTH = "/grpc.health.v1.Health/"

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses every call without the launcher's token, health checks excepted (the kubelet has no token)."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()
        # A streaming handler, whatever the call is: it refuses before anything was read.
        self._refusal: _Handler = grpc.stream_stream_rpc_method_handler(_refuse)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """Let the call pass, or hand out a handler that answers UNAUTHENTICATED."""
        is_open = handler_call_details.method.startswith(_HEALTH)
        given = _authorization(handler_call_details.invocation_metadata)
        if not is_open and not hmac.compare_digest(given, self._expected):
            return self._refusal
        handler = await continuation(handler_call_details)
        return None if handler is None else reading(handler)


def _authorization(metadata: Sequence[tuple[str, str | bytes]]) -> bytes:
    for key, value in metadata:
        if key == "authorization":
            return value if isinstance(value, bytes) else value.encode()
    return b""


async def _refuse(_requests: object, context: "grpc.aio.ServicerContext[object, object]") -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "The launcher's token is missing or wrong.")
