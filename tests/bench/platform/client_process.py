"""A client of the platform in a process of its own: the library as users have it, or the contract's bare stubs.

    python -m tests.bench.platform.client_process --target HOST:PORT --model NAME --kind library|stubs

The key comes in TIDEMILL_BENCH_KEY.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import grpc
import uvloop

from tests.bench.platform.load import Load, Trace, requests, summary
from tidemill import AsyncClient
from tidemill.v1 import inference_pb2, inference_pb2_grpc

Generate = Callable[[str, int, Trace], Awaitable[None]]  # a prompt, max_tokens, where to note what came


class Kind(Protocol):
    """A client."""

    async def generate(self, prompt: str, max_tokens: int, trace: Trace) -> None:
        """One streamed answer."""

    async def complete(self, prompt: str, max_tokens: int, trace: Trace) -> None:
        """One whole answer."""

    async def close(self) -> None:
        """Close the connection."""


class Library:
    """`tidemill.AsyncClient`."""

    def __init__(self, target: str, api_key: str, model: str) -> None:
        self._client = AsyncClient(api_key, target=target, model=model)

    async def generate(self, prompt: str, max_tokens: int, trace: Trace) -> None:
        """One streamed answer. Pieces of text are what the library shows; their tokens are known at the end."""
        stream = await self._client.complete_prompt(prompt, max_tokens, temperature=0.0)
        async for _ in stream:
            trace.saw(1, time.perf_counter())
        assert stream.usage is not None
        trace.num_tokens = stream.usage.completion_tokens

    async def complete(self, prompt: str, max_tokens: int, trace: Trace) -> None:
        """One whole answer."""
        answer = await self._client.complete(prompt, max_tokens, temperature=0.0)
        assert answer.usage is not None
        trace.saw(answer.usage.completion_tokens, time.perf_counter())

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


class Stubs:
    """The generated stubs, as any gRPC client would use them."""

    def __init__(self, target: str, api_key: str, model: str) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {api_key}"),)
        self._model = model

    async def generate(self, prompt: str, max_tokens: int, trace: Trace) -> None:
        """One streamed answer."""
        async for response in self._stub.Generate(self._request(prompt, max_tokens), metadata=self._metadata):
            if response.HasField("delta"):
                trace.saw(response.delta.num_tokens, time.perf_counter())

    async def complete(self, prompt: str, max_tokens: int, trace: Trace) -> None:
        """One whole answer."""
        response = await self._stub.Complete(self._request(prompt, max_tokens), metadata=self._metadata)
        trace.saw(response.end.usage.completion_tokens, time.perf_counter())

    def _request(self, prompt: str, max_tokens: int) -> inference_pb2.GenerateRequest:
        return inference_pb2.GenerateRequest(
            model=self._model,
            input=inference_pb2.Input(prompt=prompt),
            options=inference_pb2.GenerationOptions(
                max_tokens=max_tokens, sampling=inference_pb2.Sampling(temperature=0.0)
            ),
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


async def run(load: Load, client: Kind) -> dict[str, float]:
    """One turn."""
    traces: list[Trace] = []
    generate: Generate = client.complete if load.whole else client.generate

    async def stream(prompt: str, pauses: list[float]) -> None:
        for pause in pauses:
            if pause:
                await asyncio.sleep(pause)
            traces.append(trace := Trace(time.perf_counter()))
            await generate(prompt, load.max_tokens, trace)

    before = time.process_time()
    async with asyncio.TaskGroup() as group:
        for prompt, pauses in zip(load.prompts(), load.pauses(), strict=True):
            group.create_task(stream(prompt, pauses))
    found = summary(traces, time.process_time() - before)
    assert found["tokens"] == load.streams * load.rounds * load.max_tokens, found
    return found


def main() -> None:
    """Connect once, then a turn for each line of stdin."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--kind", choices=("library", "stubs"), default="library")
    given = parser.parse_args()
    kind: type[Library | Stubs] = {"library": Library, "stubs": Stubs}[given.kind]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def make() -> Kind:
            return kind(given.target, os.environ["TIDEMILL_BENCH_KEY"], given.model)

        client = runner.run(make())
        print(json.dumps({"ready": True}), flush=True)
        for load in requests(sys.stdin):
            print(json.dumps(runner.run(run(load, client))), flush=True)
        runner.run(client.close())


if __name__ == "__main__":
    main()
