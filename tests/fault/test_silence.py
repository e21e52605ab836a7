"""Streams on which nothing is said for long, while the client's pings ask whether the server is there."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.fault.callers import Callers
from tests.integration.api.conftest import MODEL
from tests.scale import IS_FULL
from tests.server_process import server_process
from tidemill.v1 import inference_pb2

pytestmark = pytest.mark.fault

# By gRPC's own default the third ping within 5 minutes is abuse, and the connection is closed: with pings each 10 s
# that is after 30 s. Pings each 6 s ask the same within 18 s; those below 5 s may be refused, see `api/server.py`.
PING_SECONDS, SILENCE_SECONDS = (10, 120) if IS_FULL else (6, 20)
OPTIONS = (
    ("grpc.keepalive_time_ms", PING_SECONDS * 1000),
    ("grpc.keepalive_timeout_ms", 60_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


async def test_a_silent_stream_lives_through_the_clients_pings(tmp_path: Path, note: Callable[..., None]) -> None:
    with server_process(tmp_path) as server:
        async with grpc.aio.insecure_channel(server.grpc, options=OPTIONS) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            began = time.monotonic()
            next_word = asyncio.ensure_future(watch.read())
            await asyncio.wait({next_word}, timeout=SILENCE_SECONDS)
            assert not next_word.done(), f"the stream ended after {time.monotonic() - began:.1f} s: {next_word}"
            server.process.terminate()
            assert (await next_word).status == health_pb2.HealthCheckResponse.NOT_SERVING
    note(silence=f"{SILENCE_SECONDS} s with pings each {PING_SECONDS} s")


async def test_a_whole_answer_that_takes_long_lives_through_them_too(tmp_path: Path, note: Callable[..., None]) -> None:
    num_tokens = SILENCE_SECONDS
    with server_process(tmp_path, "--replica-device", "fake", "--replica-fake-tick-ms", "1000") as server:
        async with Callers(server.grpc, server.api_key, OPTIONS) as callers:
            await callers.start(MODEL)
            request = inference_pb2.GenerateRequest(
                model=MODEL,
                input=inference_pb2.Input(prompt="tell me of the tide"),
                options=inference_pb2.GenerationOptions(max_tokens=num_tokens),
                request_id="a long one",
            )
            answer = await callers.inference.Complete(request, metadata=callers.metadata, timeout=SILENCE_SECONDS + 300)
            assert answer.end.usage.completion_tokens == num_tokens
    note(silence=f"{num_tokens} s until a whole answer with pings each {PING_SECONDS} s")
