"""Every rpc with messages of any content and with bytes that are none: each call ends typed, and nothing breaks."""

from collections import Counter
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf import descriptor_pool
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing.batches import MESSAGES_AT_ONCE, bases, batch_of, told
from tests.fuzzing.calls import HARM
from tests.fuzzing.messages import messages, texts_broken
from tests.fuzzing.methods import Method, methods_of
from tests.fuzzing.seeds import fuzzed
from tests.fuzzing.target import Target, check_generates, target_of
from tests.fuzzing.world import World
from tests.integration.api.conftest import MODEL, wire_to
from tests.scale import IS_FULL, count
from tests.server_process import server_process
from tidemill.v1 import inference_pb2
from tidemill_services.api.server import SERVICE_NAMES

pytestmark = pytest.mark.fault

SERVICES = (*SERVICE_NAMES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
METHODS = [
    method for service in SERVICES for method in methods_of(descriptor_pool.Default().FindServiceByName(service))
]
UNBUILT = "tidemill.v1.JobService"  # takes no message yet
NUM_BATCHES = count(2, full=20_000 // MESSAGES_AT_ONCE)
# How long a stream is read: most are left about when their batch is answered. And for how long one answer is waited.
STREAM_SECONDS = (*[0.04] * 8, 0.2, 0.5)
ANSWER_SECONDS = (*[20.0] * 8, 0.2, 0.5)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("fuzzed")
    with server_process(folder, "--replica-device", "fake") as server, target_of(server) as target:
        yield target


@pytest.fixture(scope="module")
def whole_world(target: Target) -> Iterator[World]:
    with wire_to(target.server) as wire:
        yield (world := World(wire))
        world.lift_limits()
        target.check_at_rest()


@pytest.fixture
def world(whole_world: World) -> World:
    whole_world.renew()
    return whole_world


def test_every_method_is_fuzzed(target: Target) -> None:
    assert {method.path for method in target.methods} == {method.path for method in METHODS}


def test_of_every_method_a_message_is_known_that_it_takes(target: Target, world: World) -> None:
    right = world.right()
    assert set(right) == {method.path for method in METHODS if not method.path.startswith(f"/{UNBUILT}/")}
    for method in METHODS:
        if method.path in right:
            world.renew()
            patience = 0.3 if method.streams_responses else 60
            (code,) = target.send(method, [world.right()[method.path].SerializeToString()], patience)
            assert code.name in ("OK", "CANCELLED" if method.streams_responses else "OK"), method.path


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.path.rpartition(".")[2])
def test_no_message_and_no_bytes_bring_a_method_to_an_internal_error(
    target: Target, world: World, method: Method, note: Callable[..., None]
) -> None:
    known, codes = world.known(), Counter[grpc.StatusCode]()
    right = taken.SerializeToString() if (taken := world.right().get(method.path)) else b""
    patience = STREAM_SECONDS if method.streams_responses else ANSWER_SECONDS
    drawn = messages(method.request, known, right=right)
    for chance, message in bases(drawn, method.path, NUM_BATCHES):
        contents = batch_of(chance, message, known, right)
        with told(method, contents):
            answers = target.send(method, contents, chance.choice(patience))
            harmed = [content.hex() for content, code in zip(contents, answers, strict=True) if code in HARM]
            assert not harmed, answers
            target.check()
        codes.update(answers)
        if grpc.StatusCode.RESOURCE_EXHAUSTED in answers:
            world.lift_limits()
    if IS_FULL:
        world.lift_limits()
        target.check_at_rest()  # in the short form once, when all is over
    assert set(codes) - {grpc.StatusCode.INVALID_ARGUMENT}, "no message got beyond the look at its fields"
    note(messages=codes.total(), **{code.name: number for code, number in codes.most_common()})


@pytest.mark.parametrize("service", SERVICES)
def test_text_that_is_not_utf_8_is_refused_wherever_it_stands(target: Target, service: str) -> None:
    for method in [method for method in METHODS if method.path.startswith(f"/{service}/")]:
        for path, content in texts_broken(method.request):
            (code,) = target.send(method, [content], patience=60)
            assert code.name == "INVALID_ARGUMENT", (method.path, path)
    target.check()


def test_any_text_is_gone_on_from_or_refused(target: Target) -> None:
    (generate,) = [method for method in target.methods if method.path.endswith("/Generate")]
    with wire_to(target.server) as wire:
        check_generates(wire)

    @fuzzed(count(25, full=500))
    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), st.booleans())
    def say(text: str, as_chat: bool) -> None:
        message = inference_pb2.Message(role="user", content=text)
        given_input = (
            inference_pb2.Input(chat=inference_pb2.Chat(messages=[message]))
            if as_chat
            else inference_pb2.Input(prompt=text)
        )
        options = inference_pb2.GenerationOptions(max_tokens=3)
        request = inference_pb2.GenerateRequest(model=MODEL, input=given_input, options=options)
        (code,) = target.send(generate, [request.SerializeToString()], patience=60)
        assert code.name in ("OK", "INVALID_ARGUMENT")
        target.check()

    with wire_to(target.server) as wire:
        wire.start()
        say()
