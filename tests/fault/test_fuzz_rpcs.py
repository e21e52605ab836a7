"""Every rpc with messages of any content and with bytes that are none: each call ends typed, and nothing breaks."""

import random
from collections.abc import Iterator

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing.calls import HARM
from tests.fuzzing.damage import damaged
from tests.fuzzing.messages import messages, texts_broken
from tests.fuzzing.methods import Method
from tests.fuzzing.seeds import fuzzed
from tests.fuzzing.target import Target, check_generates, target_of
from tests.integration.api.conftest import MODEL, wire_to
from tests.scale import count
from tests.server_process import server_process
from tidemill.v1 import inference_pb2, session_pb2
from tidemill_services.api.server import SERVICE_NAMES

pytestmark = pytest.mark.fault

SERVICES = (*SERVICE_NAMES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
MESSAGES_AT_ONCE = 10
NUM_BATCHES = count(6, full=2_000)

PROMPT = inference_pb2.Input(prompt="once upon a time")
FEW = inference_pb2.GenerationOptions(max_tokens=3)
# Messages that are taken as they are, so that those with few changes get as far as a replica.
RIGHT = {
    f"/tidemill.v1.{path}": message.SerializeToString()
    for path, message in {
        "InferenceService/Generate": inference_pb2.GenerateRequest(model=MODEL, input=PROMPT, options=FEW),
        "InferenceService/Complete": inference_pb2.GenerateRequest(model=MODEL, input=PROMPT, options=FEW),
        "InferenceService/GenerateBatch": inference_pb2.GenerateBatchRequest(model=MODEL, inputs=[PROMPT], options=FEW),
        "SessionService/StartSession": session_pb2.StartSessionRequest(model=MODEL),
    }.items()
}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("fuzzed")
    with server_process(folder, "--replica-device", "fake") as server, target_of(server) as target:
        yield target


@pytest.fixture
def known(target: Target) -> Iterator[dict[str, list[object]]]:
    """Values that exist, by the names of the fields that take them: some calls then get far."""
    with wire_to(target.server) as wire:
        ended = wire.start(model="tiny-llama-positions").session.name
        wire.stop(model="tiny-llama-positions")
        session = wire.start().session.name
        page = wire.sessions.ListSessions(session_pb2.ListSessionsRequest(page_size=1), metadata=wire.metadata)
        names = [*[MODEL] * 6, f"models/{MODEL}", "tide-nano", "", "no-such-model"]
        yield {
            "model": names,
            "name": [*names, session, ended],
            "session": ["", "", "", session, session, ended],
            "request_id": ["", "first", "second"],
            "holder": ["", "somebody"],
            "page_token": ["", page.next_page_token],
            "prompt": ["once upon a time", "the tide"],
            "role": ["user", "system", "assistant"],
            "template": ["", "default"],
            "max_tokens": [1, 5, 20],
            "temperature": [0.0, 0.7],
            "top_p": [1.0, 0.5, 1e-40],
            "top_k": [0, 3, 2**31 - 1],
            "stop": ["the", "x"],
            "seconds": [0, 5],
            "nanos": [0, 1],
            "service": ["", *SERVICES],
            "file_containing_symbol": list(SERVICES),
        }


def methods_of(target: Target, service: str) -> list[Method]:
    return [method for method in target.methods if method.path.startswith(f"/{service}/")]


def test_every_service_is_fuzzed(target: Target) -> None:
    assert {method.path.split("/")[1] for method in target.methods} == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_no_message_and_no_bytes_bring_a_method_to_an_internal_error(
    target: Target, known: dict[str, list[object]], service: str
) -> None:
    for method in methods_of(target, service):
        fuzz(target, method, known)
    target.check_at_rest()


def fuzz(target: Target, method: Method, known: dict[str, list[object]]) -> None:
    @fuzzed(NUM_BATCHES)
    @given(
        messages(method.request, known, right=RIGHT.get(method.path, b"")),
        st.integers(0, 2**32),
        st.sampled_from((0.01, 0.3, 1.0)),
    )
    def send(message: Message, seed: int, patience: float) -> None:
        chance = random.Random(seed)
        content = message.SerializeToString()
        contents = [content, *(damaged(chance, content) for _ in range(MESSAGES_AT_ONCE - 1))]
        codes = target.send(method, contents, patience)
        assert not set(codes) & set(HARM), (method.path, codes)
        target.check()

    send()


@pytest.mark.parametrize("service", SERVICES)
def test_text_that_is_not_utf_8_is_refused_wherever_it_stands(target: Target, service: str) -> None:
    for method in methods_of(target, service):
        for path, content in texts_broken(method.request):
            (code,) = target.send(method, [content], patience=30)
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
        (code,) = target.send(generate, [request.SerializeToString()], patience=30)
        assert code.name in ("OK", "INVALID_ARGUMENT")
        target.check()

    with wire_to(target.server) as wire:
        wire.start()
        say()
    target.check_at_rest()
