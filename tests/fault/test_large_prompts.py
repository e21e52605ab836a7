"""Prompts over every limit: refused by a sentence that names the limit, nothing spent, and the memory comes back."""

import re
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest

import tidemill
from tests.fuzzing.target import check_generates
from tests.integration.api.conftest import MODEL, Wire, wire_to
from tests.scale import count
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import inference_pb2
from tidemill_models.chat import MAX_TEXT_BYTES
from tidemill_services.api.server import MAX_MESSAGE_BYTES
from tidemill_services.gateway.json_body import MAX_BODY_BYTES

pytestmark = pytest.mark.fault

HUGE = "tide " * (2 << 20)  # 10 MiB
LARGE = "tide " * (1 << 18)  # 1.25 MiB: one message, and more than is tokenized
ROUNDS = count(2, full=50)
SPENT = {f"tidemill_{what}_total" for what in ("prompt_tokens", "completion_tokens", "generations")}
SLACK_BYTES = 64 << 20  # pages that allocators keep


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("large")
    with server_process(folder, "--replica-device", "fake") as server, wire_to(server) as wire:
        check_generates(wire)
        yield server


@pytest.fixture
def wire(server: ServerProcess) -> Iterator[Wire]:
    with wire_to(server) as wire:
        wire.start()
        yield wire


def refused(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


def chat(text: str) -> inference_pb2.Input:
    messages = [inference_pb2.Message(role="user", content=text)]
    return inference_pb2.Input(chat=inference_pb2.Chat(messages=messages))


def check_grpc(wire: Wire) -> None:
    for given in (inference_pb2.Input(prompt=HUGE), chat(HUGE)):
        code, sentence = refused(lambda given=given: list(wire.generate(input=given)))
        assert code == "RESOURCE_EXHAUSTED"
        assert str(MAX_MESSAGE_BYTES) in sentence
    for given in (inference_pb2.Input(prompt=LARGE), chat(LARGE)):
        code, sentence = refused(lambda given=given: list(wire.generate(input=given)))
        assert code == "INVALID_ARGUMENT"
        assert str(MAX_TEXT_BYTES) in sentence


def check_http(server: ServerProcess) -> None:
    headers = {"authorization": f"Bearer {server.api_key}"}
    with httpx.Client(base_url=f"http://{server.http}", headers=headers, timeout=60) as client:
        for text, status, limit in ((HUGE, 413, f"{MAX_BODY_BYTES:,}"), (LARGE, 400, str(MAX_TEXT_BYTES))):
            message = {"role": "user", "content": text}
            for path, body in (
                ("/v1/completions", {"model": MODEL, "prompt": text}),
                ("/v1/chat/completions", {"model": MODEL, "messages": [message]}),
            ):
                answer = client.post(path, json=body)
                assert answer.status_code == status
                assert answer.json()["error"]["code"] == "FIELD_INVALID"
                assert limit in answer.json()["error"]["message"]


def spent(server: ServerProcess) -> dict[str, float]:
    """What was counted of generations and their tokens."""
    with urllib.request.urlopen(f"http://{server.admin}/metrics", timeout=60) as response:
        text = response.read().decode()
    pattern = rf"^((?:{'|'.join(SPENT)})\{{.*\}}) (.*)$"
    return {name: float(value) for name, value in re.findall(pattern, text, re.MULTILINE)}


def resident_bytes(server: ServerProcess) -> int:
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096


def test_a_prompt_of_ten_mebibytes_is_refused_at_both_doors_and_leaves_nothing(
    server: ServerProcess, wire: Wire
) -> None:
    def all_doors(_number: int = 0) -> None:
        check_grpc(wire)
        check_http(server)

    all_doors()
    before, size = spent(server), resident_bytes(server)
    assert {name.partition("{")[0] for name in before} == SPENT
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(all_doors, range(ROUNDS)))
    assert spent(server) == before
    assert resident_bytes(server) < size + SLACK_BYTES
    check_generates(wire)


def test_the_client_says_what_is_too_large(server: ServerProcess) -> None:
    with tidemill.Client(server.api_key, target=server.grpc, model=MODEL) as client, client.session():
        for text in (HUGE, LARGE):
            with pytest.raises(tidemill.TidemillError, match=str(MAX_TEXT_BYTES)):
                client.complete_prompt(text)
