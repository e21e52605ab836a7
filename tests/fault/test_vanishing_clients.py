"""Callers that are gone from one moment to the next: what runs for them ends."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fault.baseline import Baseline, gauges, wait_for
from tests.fault.callers import callers_of
from tests.fault.figures import times
from tests.fault.long_answers import LONG_LLAMA
from tests.scale import IS_FULL, bound, count
from tests.server_process import ServerProcess

pytestmark = pytest.mark.fault

ROOT = Path(__file__).parents[2]
NUM_STREAMS = 8
NO_PLACE_TAKEN = {"tidemill_leased_places": 0.0, "tidemill_replica_slots_used": 0.0}

CLIENT = """
import asyncio, sys
from tests.fault.callers import Callers, first_text, read

async def main(target, api_key, num_streams):
    async with Callers(target, api_key) as callers:
        calls = [callers.call(90_000, seconds=None) for _ in range(num_streams)]
        await asyncio.gather(*(first_text(call) for call in calls))
        print("streaming", flush=True)
        await asyncio.gather(*(read(call) for call in calls))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@contextmanager
def streaming_client(server: ServerProcess) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of its own that reads streams, until it is killed."""
    command = [sys.executable, "-c", CLIENT, server.grpc, server.api_key, str(NUM_STREAMS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == b"streaming\n"
            yield client
        finally:
            client.kill()


async def test_the_generations_of_a_killed_client_end(long_server: ServerProcess, note: Callable[..., None]) -> None:
    ended = []
    async with callers_of(long_server) as callers:
        await callers.generate(5)
        baseline = Baseline.of(long_server)
        for _ in range(count(2, full=20)):
            with streaming_client(long_server) as client:
                assert gauges(long_server)["tidemill_leased_places"] == NUM_STREAMS
                client.kill()
                ended.append(await asyncio.to_thread(wait_for, long_server, NO_PLACE_TAKEN))
        await asyncio.to_thread(baseline.wait_until_back)
    note(slots_free_after=times(ended))


async def test_the_generations_of_a_client_that_hangs_up_its_http_stream_end(
    long_server: ServerProcess, note: Callable[..., None]
) -> None:
    ended = []
    async with callers_of(long_server) as callers:
        await callers.generate(5)
        baseline = Baseline.of(long_server)
        for _ in range(count(2, full=20)):
            connections = [http_stream(long_server) for _ in range(NUM_STREAMS)]
            assert gauges(long_server)["tidemill_leased_places"] == NUM_STREAMS
            for connection in connections:
                connection.close()
            ended.append(await asyncio.to_thread(wait_for, long_server, NO_PLACE_TAKEN))
        await asyncio.to_thread(baseline.wait_until_back)
    note(slots_free_after=times(ended))


@pytest.mark.skipif(not IS_FULL, reason="18 s of waiting")
async def test_the_generations_of_a_client_that_answers_no_ping_end(
    long_server: ServerProcess, note: Callable[..., None]
) -> None:
    """As of one whose network is gone. Its system goes on to take bytes, which is the harder case."""
    async with callers_of(long_server) as callers:
        await callers.generate(5)
        baseline = Baseline.of(long_server)
        with streaming_client(long_server) as client:
            client.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            await asyncio.to_thread(wait_for, long_server, NO_PLACE_TAKEN, 60)
            ended = time.monotonic() - stopped
        await asyncio.to_thread(baseline.wait_until_back)
    assert ended < bound(20, busy=25)
    note(slots_free_after=f"{ended:.2f} s")


def http_stream(server: ServerProcess, *, receive_buffer_bytes: int = 0) -> socket.socket:
    """A connection on which text has come; 0 bytes: as the system has it."""
    body = json.dumps({"model": LONG_LLAMA, "prompt": "the tide", "max_tokens": 90_000, "stream": True})
    host, port = server.http.split(":")
    connection = socket.socket()
    if receive_buffer_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    connection.settimeout(60)
    connection.connect((host, int(port)))
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {server.http}\r\nAuthorization: Bearer {server.api_key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall((head + body).encode())
    received = b""
    while b"data: " not in received:
        more = connection.recv(4_096)
        assert more, received
        received += more
    return connection
