"""The private wire of a replica with messages of any content and with bytes that are none."""

import random
from collections import Counter
from collections.abc import Callable, Iterator

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from tests.fuzzing.batches import MESSAGES_AT_ONCE, bases, batch_of, told, variants_of
from tests.fuzzing.calls import HARM
from tests.fuzzing.damage import damaged
from tests.fuzzing.messages import messages, texts_broken
from tests.fuzzing.methods import Method, methods_of
from tests.fuzzing.replica_target import ReplicaTarget
from tests.fuzzing.seeds import chance_of
from tests.fuzzing.variants import varied
from tests.integration.api.conftest import wait_until
from tests.scale import count
from tidemill.engine.v1 import engine_pb2

pytestmark = pytest.mark.fault

ENGINE = methods_of(engine_pb2.DESCRIPTOR.services_by_name["EngineService"])
HEALTH = methods_of(health_pb2.DESCRIPTOR.services_by_name["Health"])
CONNECT, DRAIN = sorted(ENGINE, key=lambda method: method.path)
KNOWN = {
    "prompt_tokens": [5, 6, 300],
    "max_tokens": [1, 3],
    "sequence_id": [*range(1, MESSAGES_AT_ONCE + 1)],
    "stop": ["the"],
}
SUBMIT = engine_pb2.Submit(
    sequence_id=1,
    prompt_tokens=[5, 6],
    max_tokens=3,
    temperature=0.7,
    top_p=0.9,
    top_k=5,
    seed=1,
    stop=["zz", "yy"],
    min_p=0.1,
    repetition_penalty=1.1,
    presence_penalty=0.1,
    frequency_penalty=0.1,
    logit_bias={5: 1.0},
    num_logprobs=2,
)
RIGHT = engine_pb2.ConnectRequest(submit=SUBMIT).SerializeToString()
NUM_BATCHES = count(10, full=20_000 // MESSAGES_AT_ONCE)
PATIENCE_SECONDS = (0.0, *[0.05] * 5, 0.2, 1.0)  # before a stream is left
NUM_DRAINED = count(1, full=100)
HASTY_DRAIN = engine_pb2.DrainRequest(grace=Duration()).SerializeToString()
DRAINS_AT_ONCE = 20_000 // 100


@pytest.fixture(scope="module")
def replica() -> Iterator[ReplicaTarget]:
    replica = ReplicaTarget()
    yield replica
    replica.close()


def test_no_message_and_no_bytes_on_the_stream_harm_a_replica(
    replica: ReplicaTarget, note: Callable[..., None]
) -> None:
    codes = Counter[grpc.StatusCode]()
    num_before = num_tokens = replica.num_decode_tokens()
    for slowness in (1, 20):  # again, with more patience, only where a starved replica came to nothing
        if num_tokens == num_before:
            codes += send_batches(replica, slowness)
            num_tokens = replica.num_decode_tokens()
    replica.check()
    assert num_tokens > num_before, "none of these streams generated anything"
    note(
        streams=codes.total(),
        tokens=num_tokens - num_before,
        **{code.name: number for code, number in codes.items()},
    )


def send_batches(replica: ReplicaTarget, slowness: int) -> Counter[grpc.StatusCode]:
    """How their streams ended."""
    codes = Counter[grpc.StatusCode]()
    for chance, message in bases(messages(CONNECT.request, KNOWN, right=RIGHT), CONNECT.path, NUM_BATCHES):
        contents = [*numbered(chance, variants_of(chance, message, KNOWN, RIGHT, MESSAGES_AT_ONCE))]
        if chance.random() < 0.5:
            contents[-1] = damaged(chance, contents[-1])
        with told(CONNECT, contents):
            # One that says nothing more after its messages ends what runs for it.
            stays, patience = chance.random() < 0.9, slowness * chance.choice(PATIENCE_SECONDS)
            code = replica.send(CONNECT, contents, patience, stays=stays)
            assert code not in HARM
            replica.check_log()
        codes[code] += 1
    return codes


def numbered(chance: random.Random, contents: list[bytes]) -> Iterator[bytes]:
    """Most sequences with ids that rise, as they must in a stream: one that is too high shuts out all that follow."""
    for number, content in enumerate(contents, 1):
        if engine_pb2.ConnectRequest.FromString(content).HasField("abort") or chance.random() < 0.03:
            yield content
        else:
            submit = engine_pb2.Submit(sequence_id=number)
            yield content + engine_pb2.ConnectRequest(submit=submit).SerializeToString()


@pytest.mark.parametrize("method", HEALTH, ids=lambda method: method.path)
def test_no_message_and_no_bytes_harm_a_replicas_health(
    replica: ReplicaTarget, method: Method, note: Callable[..., None]
) -> None:
    codes = Counter[grpc.StatusCode]()

    known = {"service": ["", "no-such-service"]}
    for chance, message in bases(messages(method.request, known), method.path, NUM_BATCHES):
        contents = batch_of(chance, message, known)
        with told(method, contents):
            answers = replica.send_each(method, contents, 0.04 if method.streams_responses else 30)
            assert not set(answers) & set(HARM)
            replica.check_log()
        codes.update(answers)
    replica.check()
    note(messages=codes.total(), **{code.name: number for code, number in codes.items()})


def test_a_replica_drains_in_order_whatever_it_is_told_about_its_grace(note: Callable[..., None]) -> None:
    codes, chance = Counter[grpc.StatusCode](), chance_of("drain")
    for _ in range(NUM_DRAINED):
        replica = ReplicaTarget("fake", tick_ms=50)
        try:
            replica.stay_busy()
            some = [varied(chance, engine_pb2.DrainRequest(), {}).SerializeToString() for _ in range(DRAINS_AT_ONCE)]
            contents = [damaged(chance, each) if chance.random() < 0.5 else each for each in some]
            with told(DRAIN, contents):
                patient = replica.send_each(DRAIN, [each for each in contents if not ends_soon(each)], 60)
                assert {code.name for code in patient} <= {"OK", "INVALID_ARGUMENT"}
                hasty = replica.send_each(DRAIN, [*filter(ends_soon, contents), HASTY_DRAIN], 60)
                assert not set(hasty) & set(HARM)
                assert replica.wait() == 0
                replica.check_no_fault()
            codes.update(patient + hasty)
        finally:
            replica.close()
    note(messages=codes.total(), **{code.name: number for code, number in codes.items()})


def ends_soon(content: bytes) -> bool:
    """Whether a replica that runs something is told to cut it so soon that later calls may find nobody."""
    try:
        request = engine_pb2.DrainRequest.FromString(content)
    except DecodeError:
        return False
    return request.HasField("grace") and request.grace.seconds + request.grace.nanos / 1e9 < 120


@pytest.mark.parametrize("method", [*ENGINE, *HEALTH], ids=lambda method: method.path)
def test_bytes_that_are_no_message_are_a_wrong_request_of_a_caller_with_the_token(
    replica: ReplicaTarget, method: Method
) -> None:
    broken = [b"\xff", b"\x0a", b"\x0b" * 300, *(content for _, content in texts_broken(method.request))]
    for content in broken:
        assert replica.send(method, [content], 30).name == "INVALID_ARGUMENT", content
        if method in ENGINE:
            for wrong in ((), (("authorization", "Bearer " + "0" * 64),), (("authorization", "\x20"),)):
                assert replica.send(method, [content], 30, metadata=wrong).name == "UNAUTHENTICATED"
    replica.check()


def test_bytes_that_are_no_message_end_the_sequences_of_their_stream_only(replica: ReplicaTarget) -> None:
    submit = engine_pb2.Submit(sequence_id=1, prompt_tokens=[5, 6], max_tokens=500, top_p=1)
    running = engine_pb2.ConnectRequest(submit=submit).SerializeToString()
    assert replica.send(CONNECT, [running, b"\xff"], 30).name == "INVALID_ARGUMENT"

    def nothing_runs() -> bool:
        replica.check()  # a step of the engine, which tells its load
        return replica.client.status.load.num_running == 0

    wait_until(nothing_runs, "that the aborted sequence is gone", 60)
