"""The least that an answer costs on the wire: a bare grpc.aio server that streams the contract's messages, made up, to
whoever asks. No key, no session, no replica: what it spends is gRPC's own.

    python -m tests.bench.platform.floor_process [--tick-ms N]
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from tidemill.v1 import inference_pb2, inference_pb2_grpc, usage_pb2


class Floor(inference_pb2_grpc.InferenceServiceServicer):
    """Answers with one token a message."""

    def __init__(self, tick_ms: int) -> None:
        self._tick_seconds = tick_ms / 1000
        self._tick = asyncio.Event()

    async def run(self) -> None:
        """Tick for all streams at once, as a step of an engine does."""
        while self._tick_seconds:
            await asyncio.sleep(self._tick_seconds)
            tick, self._tick = self._tick, asyncio.Event()
            tick.set()

    async def Generate(  # noqa: N802 -- the contract's name
        self, request: inference_pb2.GenerateRequest, _context: Any
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """One stream; without a tick its tokens come at once."""
        num_tokens = request.options.max_tokens
        for number in range(1, num_tokens + 1):
            if self._tick_seconds:
                await self._tick.wait()
            yield inference_pb2.GenerateResponse(
                sequence_number=number, delta=inference_pb2.Delta(text=" word", num_tokens=1)
            )
        yield inference_pb2.GenerateResponse(sequence_number=num_tokens + 1, end=_end(request))

    async def Complete(  # noqa: N802 -- the contract's name
        self, request: inference_pb2.GenerateRequest, _context: Any
    ) -> inference_pb2.CompleteResponse:
        """One whole answer, at once."""
        return inference_pb2.CompleteResponse(text=" word" * request.options.max_tokens, end=_end(request))


def _end(request: inference_pb2.GenerateRequest) -> inference_pb2.GenerationEnd:
    usage = usage_pb2.Usage(prompt_tokens=len(request.input.prompt), completion_tokens=request.options.max_tokens)
    return inference_pb2.GenerationEnd(finish_reason=inference_pb2.FINISH_REASON_LENGTH, usage=usage)


async def serve(tick_ms: int) -> None:
    """Say where, and serve until stdin ends."""
    floor = Floor(tick_ms)
    server = grpc.aio.server()
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(floor, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"target": f"127.0.0.1:{port}"}), flush=True)
    async with asyncio.TaskGroup() as group:
        ticking = group.create_task(floor.run(), name="ticks")
        await asyncio.to_thread(sys.stdin.read)
        ticking.cancel()
    await server.stop(0)


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tick-ms", type=int, default=0)
    uvloop.run(serve(parser.parse_args().tick_ms))


if __name__ == "__main__":
    main()
