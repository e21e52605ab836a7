"""Connections to the gRPC port that speak no good HTTP/2: others' calls go on, and nothing of them stays."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Self

import grpc
import pytest

from tests.fuzzing.http2 import Attacker, grpc_endings
from tests.fuzzing.seeds import chance_of
from tests.fuzzing.target import Target, num_open_files, target_of
from tests.integration.api.conftest import MODEL, text_of, wait_until, wire_to
from tests.scale import count
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import model_pb2

pytestmark = pytest.mark.fault

SPARE_FILES = 5  # what a server opens when it is first needed

CONNECTIONS_AT_ONCE = 32
OK = grpc.StatusCode.OK.value[0]
INTERNAL, UNKNOWN = grpc.StatusCode.INTERNAL.value[0], grpc.StatusCode.UNKNOWN.value[0]
HARM = {(INTERNAL, True), (UNKNOWN, True), (UNKNOWN, False)}
PATIENCE_SECONDS = 0.3
ANSWER_SECONDS = 60
NUM_CONNECTIONS = count(150, full=5_000)


@pytest.fixture
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("attacked")
    with server_process(folder, "--replica-device", "fake") as server, target_of(server) as target:
        target.check_at_rest()
        yield target


class Bystander:
    """Somebody else, who generates all the while."""

    def __init__(self, server: ServerProcess) -> None:
        self.num_generations = 0
        self.errors: list[Exception] = []
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._generate, name="bystander")

    def _generate(self) -> None:
        try:
            with wire_to(self._server) as wire:
                wire.start()
                while not self._stop.is_set():
                    assert text_of(list(wire.generate(max_tokens=20)))
                    self.num_generations += 1
        except (grpc.RpcError, AssertionError) as error:
            self.errors.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.num_generations or self.errors, "the bystander's first text", ANSWER_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


async def connection(address: str, content: bytes, *, num_endings: int | None = None) -> bytes:
    """Send this, listen for a moment or until so many calls have ended, hang up; what came back."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answer = bytearray()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS if num_endings is None else ANSWER_SECONDS):
            writer.write(content)
            while chunk := await reader.read(65_536):
                answer += chunk
                if num_endings is not None and len(grpc_endings(bytes(answer))) >= num_endings:
                    break
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.transport.abort()
    return bytes(answer)


def test_hostile_connections_harm_nobody_and_leave_nothing(target: Target) -> None:
    server = target.server
    request = model_pb2.GetModelRequest(name=MODEL).SerializeToString()
    attacker = Attacker(chance_of("http2"), "/tidemill.v1.ModelService/GetModel", server.api_key, request)
    assert 2 * attacker.num_kinds < NUM_CONNECTIONS
    num_files = num_open_files(server.process.pid)
    right = target.run(connection(server.grpc, attacker.right_connection(), num_endings=1))
    assert grpc_endings(right) == [(OK, False)], "what the attacks depart from is no right call"

    async def attack(contents: list[bytes]) -> list[bytes]:
        return await asyncio.gather(*(connection(server.grpc, content) for content in contents))

    with Bystander(server) as bystander:
        for _ in range(0, NUM_CONNECTIONS, CONNECTIONS_AT_ONCE):
            contents = [attacker.next_connection() for _ in range(CONNECTIONS_AT_ONCE)]
            for answer in target.run(attack(contents)):
                assert not HARM.intersection(grpc_endings(answer)), answer
            target.check()
            assert bystander.errors == []
    target.check_at_rest()
    wait_until(
        lambda: num_open_files(server.process.pid) <= num_files + SPARE_FILES,
        "that every connection was given back",
        90,
    )
