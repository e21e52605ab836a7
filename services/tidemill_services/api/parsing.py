"""Parses requests behind the door: what is no message is refused as any wrong request is, and counted."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from tidemill_services.api.statuses import status_of
from tidemill_services.domain.errors import FieldInvalidError
from tidemill_telemetry.call_record import current_call

Context = grpc.aio.ServicerContext[Any, Any]
Deserialize: TypeAlias = Callable[[bytes], Any]
Streaming: TypeAlias = Callable[[Any, Context], AsyncGenerator[Any]]


def parse(request: bytes, deserialize: Deserialize) -> Any:
    """The message of these bytes; its request id names the call. Raises FieldInvalidError."""
    try:
        message = deserialize(request)
    except DecodeError:
        raise FieldInvalidError("The request's bytes are not a message of this method.") from None
    call = current_call()
    if call is not None:
        call.name(getattr(message, "request_id", ""))
    return message


def parsing_one(behavior: Streaming, deserialize: Deserialize) -> Streaming:
    """The behavior for one request that is not parsed yet."""
    return lambda request, context: behavior(parse(request, deserialize), context)


def parsing_each(behavior: Streaming, deserialize: Deserialize) -> Streaming:
    """The behavior for a stream of requests that are not parsed yet."""

    async def parsed(requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for request in requests:
            yield parse(request, deserialize)

    return lambda requests, context: behavior(parsed(requests), context)


def open_handler(handler: Any, method: str) -> Any:
    """The handler of a method that anyone may call; only its requests are looked at."""
    deserialize, serialize = handler.request_deserializer, handler.response_serializer

    async def refuse(error: FieldInvalidError, context: Context) -> None:
        await context.abort_with_status(rpc_status.to_status(status_of(error, method)))

    async def call(request: bytes, context: Context) -> Any:
        try:
            message = parse(request, deserialize)
        except FieldInvalidError as error:
            await refuse(error, context)
        return await (handler.unary_unary or handler.unary_stream)(message, context)

    async def stream(requests: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async for response in parsing_each(handler.stream_stream, deserialize)(requests, context):
                yield response
        except FieldInvalidError as error:
            await refuse(error, context)

    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(call, response_serializer=serialize)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(call, response_serializer=serialize)
    return grpc.stream_stream_rpc_method_handler(stream, response_serializer=serialize)
