"""One call with bytes in place of messages."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc
import grpc.aio

from tests.fuzzing.methods import Method

HARM = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
ANSWER_SECONDS = 60.0
# What the client library makes up when the answer comes while it still sends, in place of the answer's status.
_SENT_TOO_LATE = "Internal error from Core"
Metadata = tuple[tuple[str, str], ...]


async def call_with(
    channel: grpc.aio.Channel,
    method: Method,
    contents: Sequence[bytes],
    metadata: Metadata,
    patience: float,
    *,
    stays: bool = False,
) -> grpc.StatusCode:
    """Send these requests, one where the method takes one; leave after `patience` seconds. How it ended.

    Of a stream of requests: whether it `stays` open after them.
    """
    kind = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, True): channel.stream_stream,
    }[method.streams_requests, method.streams_responses]
    is_over = asyncio.Event()
    if not stays:
        is_over.set()
    request = _requests(contents, is_over) if method.streams_requests else contents[0]
    call = kind(method.path)(request, metadata=metadata, timeout=ANSWER_SECONDS)
    try:
        async with asyncio.timeout(patience):
            if method.streams_responses:
                async for _ in call:
                    pass
            else:
                await call
    except TimeoutError:
        call.cancel()
    except grpc.aio.AioRpcError as error:
        if error.details() == _SENT_TOO_LATE:
            return await call_with(channel, method, contents, metadata, patience, stays=stays)
        return error.code()
    finally:
        is_over.set()
    return await call.code()


async def _requests(contents: Sequence[bytes], is_over: asyncio.Event) -> AsyncIterator[bytes]:
    for content in contents:
        yield content
    await is_over.wait()
