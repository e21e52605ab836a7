"""One call with bytes in place of messages."""

import asyncio
from collections.abc import Sequence

import grpc
import grpc.aio

from tests.fuzzing.methods import Method

HARM = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
ANSWER_SECONDS = 60.0
# What the client library makes up when the answer comes while it still sends, in place of the answer's status.
_SENT_TOO_LATE = "Internal error from Core"
Metadata = tuple[tuple[str, str], ...]


async def call_with(
    channel: grpc.aio.Channel, method: Method, contents: Sequence[bytes], metadata: Metadata, patience: float
) -> grpc.StatusCode:
    """Send these requests, one where the method takes one; leave a stream after `patience` seconds. How it ended."""
    kind = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, True): channel.stream_stream,
    }[method.streams_requests, method.streams_responses]
    request = iter(contents) if method.streams_requests else contents[0]
    call = kind(method.path)(request, metadata=metadata, timeout=ANSWER_SECONDS)
    try:
        if method.streams_responses:
            async with asyncio.timeout(patience):
                async for _ in call:
                    pass
        else:
            await call
    except TimeoutError:
        call.cancel()
    except grpc.aio.AioRpcError as error:
        if error.details() == _SENT_TOO_LATE:
            return await call_with(channel, method, contents, metadata, patience)
        return error.code()
    return await call.code()
