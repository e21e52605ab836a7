"""The private wire of a replica with messages of any content and with bytes that are none."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import AsyncExitStack

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing.calls import HARM, Metadata, call_with
from tests.fuzzing.damage import damaged
from tests.fuzzing.messages import messages, texts_broken
from tests.fuzzing.methods import Method, methods_of
from tests.fuzzing.seeds import fuzzed
from tests.integration.api.conftest import wait_until
from tests.integration.replica.replica_process import ReplicaProcess, read_all, replica_process
from tests.scale import count
from tidemill.engine.v1 import engine_pb2
from tidemill_services.engine_client import EngineFinish, EngineRequest, ReplicaClient

pytestmark = pytest.mark.fault

ENGINE = methods_of(engine_pb2.DESCRIPTOR.services_by_name["EngineService"])
HEALTH = methods_of(health_pb2.DESCRIPTOR.services_by_name["Health"])
CONNECT, DRAIN = sorted(ENGINE, key=lambda method: method.path)
KNOWN = {"prompt_tokens": [5, 6, 300], "max_tokens": [1, 3], "sequence_id": [1, 2, 3, 4], "stop": ["the"]}
MESSAGES_AT_ONCE = 10
NUM_BATCHES = count(10, full=2_000)


class Replica:
    """A real replica, its client, and a loop to speak to both."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._runner.run(self._open())

    async def _open(self) -> None:
        served = replica_process(device="cpu", options=("--threads", "1"))
        self.process: ReplicaProcess = await self._stack.enter_async_context(served)
        self.client: ReplicaClient = await self._stack.enter_async_context(self.process.client())
        self._channel = await self._stack.enter_async_context(grpc.aio.insecure_channel(self.process.address))

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    @property
    def token(self) -> Metadata:
        return (("authorization", f"Bearer {self.process.token}"),)

    def send(
        self, method: Method, contents: list[bytes], patience: float, *, metadata: Metadata | None = None
    ) -> grpc.StatusCode:
        given = self.token if metadata is None else metadata
        return self._runner.run(call_with(self._channel, method, contents, given, patience))

    def check(self) -> None:
        """It lives, it saw no fault, and another caller's generations work."""
        request = EngineRequest(prompt_tokens=[5, 6], max_tokens=3)
        _, _, end = self._runner.run(asyncio.wait_for(read_all(self.client.generate(request)), 60))
        assert end.finish_reason in (EngineFinish.STOP, EngineFinish.LENGTH)
        assert [line for line in self.process.stderr_lines() if "Traceback" in line or "ERROR" in line] == []


@pytest.fixture(scope="module")
def replica() -> Iterator[Replica]:
    replica = Replica()
    yield replica
    replica.close()


def test_no_message_and_no_bytes_on_the_stream_harm_a_replica(replica: Replica) -> None:
    @fuzzed(NUM_BATCHES)
    @given(
        st.lists(messages(CONNECT.request, KNOWN), min_size=1, max_size=MESSAGES_AT_ONCE),
        st.integers(0, 2**32),
        st.sampled_from((0.0, 0.05, 0.3)),
    )
    def send(requests: list[Message], seed: int, patience: float) -> None:
        chance = random.Random(seed)
        contents = [request.SerializeToString() for request in requests]
        if chance.random() < 0.5:
            contents.append(damaged(chance, contents[-1]))
        assert replica.send(CONNECT, contents, patience) not in HARM

    send()
    replica.check()


@pytest.mark.parametrize("method", [*ENGINE, *HEALTH], ids=lambda method: method.path)
def test_bytes_that_are_no_message_are_a_wrong_request_of_a_caller_with_the_token(
    replica: Replica, method: Method
) -> None:
    broken = [b"\xff", b"\x0a", b"\x0b" * 300, *(content for _, content in texts_broken(method.request))]
    for content in broken:
        assert replica.send(method, [content], 30).name == "INVALID_ARGUMENT", content
        if method in ENGINE:
            for wrong in ((), (("authorization", "Bearer " + "0" * 64),), (("authorization", "\x20"),)):
                assert replica.send(method, [content], 30, metadata=wrong).name == "UNAUTHENTICATED"
    replica.check()


def test_bytes_that_are_no_message_end_the_sequences_of_their_stream_only(replica: Replica) -> None:
    submit = engine_pb2.Submit(sequence_id=1, prompt_tokens=[5, 6], max_tokens=500, top_p=1)
    running = engine_pb2.ConnectRequest(submit=submit).SerializeToString()
    assert replica.send(CONNECT, [running, b"\xff"], 30).name == "INVALID_ARGUMENT"

    def nothing_runs() -> bool:
        replica.check()  # a step of the engine, which tells its load
        return replica.client.status.load.num_running == 0

    wait_until(nothing_runs, "that the aborted sequence is gone", 60)
