"""Requests that are no message are wrong requests of the caller, and no faults of ours."""

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

UNREADABLE = "The request's bytes are not a message of this method."


def reading(handler: Any) -> Any:
    """The handler, which answers INVALID_ARGUMENT to what is no message; in a stream of requests that becomes None."""
    parse, serialize = _or_none(handler.request_deserializer), handler.response_serializer

    async def call(content: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
        request = parse(content)
        if request is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, UNREADABLE)
        return await (handler.unary_unary or handler.unary_stream)(request, context)

    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(call, response_serializer=serialize)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(call, response_serializer=serialize)
    return grpc.stream_stream_rpc_method_handler(handler.stream_stream, parse, serialize)


def _or_none(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parse(content: bytes) -> Any:
        try:
            return deserialize(content)
        except DecodeError:
            return None

    return parse
