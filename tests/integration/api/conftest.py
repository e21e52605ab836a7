import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.keys import make_key
from tests.metrics_page import read_page, series_of
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import (
    account_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)

MODEL = "tiny-llama"


@dataclass
class Wire:
    """The public services over one channel, with a key."""

    channel: grpc.Channel
    metadata: tuple[tuple[str, str], ...]

    @property
    def sessions(self) -> session_pb2_grpc.SessionServiceStub:
        return session_pb2_grpc.SessionServiceStub(self.channel)

    @property
    def models(self) -> model_pb2_grpc.ModelServiceStub:
        return model_pb2_grpc.ModelServiceStub(self.channel)

    @property
    def inference(self) -> inference_pb2_grpc.InferenceServiceStub:
        return inference_pb2_grpc.InferenceServiceStub(self.channel)

    @property
    def accounts(self) -> account_pb2_grpc.AccountServiceStub:
        return account_pb2_grpc.AccountServiceStub(self.channel)

    def start(self, **fields: object) -> session_pb2.StartSessionResponse:
        request = session_pb2.StartSessionRequest(**{"model": MODEL, **fields})
        return self.sessions.StartSession(request, metadata=self.metadata)

    def stop(self, **fields: object) -> session_pb2.StopSessionResponse:
        request = session_pb2.StopSessionRequest(**{"model": MODEL, "all_holders": True, **fields})
        return self.sessions.StopSession(request, metadata=self.metadata)

    def generate(
        self, prompt: str = "once upon a time", *, max_tokens: int = 8, **fields: object
    ) -> Iterator[inference_pb2.GenerateResponse]:
        request = inference_pb2.GenerateRequest(
            **{
                "model": MODEL,
                "input": inference_pb2.Input(prompt=prompt),
                "options": inference_pb2.GenerationOptions(
                    max_tokens=max_tokens, sampling=inference_pb2.Sampling(temperature=0)
                ),
                **fields,
            }
        )
        return self.inference.Generate(request, metadata=self.metadata, timeout=120)

    def model(self) -> model_pb2.Model:
        return self.models.GetModel(model_pb2.GetModelRequest(name=MODEL), metadata=self.metadata)


def text_of(responses: list[inference_pb2.GenerateResponse]) -> str:
    return "".join(response.delta.text for response in responses)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true within {seconds} s"
        time.sleep(0.02)


@contextmanager
def none_runs_to_its_end(server: ServerProcess, wire: Wire) -> Iterator[None]:
    """What is begun within the block is ended by somebody, and gives its places back."""

    def num_whole() -> float:
        page = series_of(read_page(server.admin))
        whole = ("tidemill_generations_total", ("finish_reason", "length"))
        return sum(value for series, value in page.items() if series.name == whole[0] and whole[1] in series.labels)

    wait_until(lambda: wire.model().demand == 0, "a model at rest")
    before = num_whole()
    yield
    wait_until(lambda: wire.model().demand == 0, "the demand of none")
    assert num_whole() == before


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="session")
def neighbours_key(server_folder: Path) -> str:
    """A key with the role user, of another account than the one of whoever runs the server."""
    return make_key(server_folder, "neighbour")


@pytest.fixture(scope="session")
def server(server_folder: Path, neighbours_key: str) -> Iterator[ServerProcess]:
    with server_process(server_folder, "--replica-threads", "1") as process:
        yield process


@pytest.fixture
def wire(server: ServerProcess) -> Iterator[Wire]:
    with wire_to(server) as wire:
        yield wire


@pytest.fixture
def neighbour(server: ServerProcess, neighbours_key: str) -> Iterator[Wire]:
    with wire_to(server, neighbours_key) as wire:
        yield wire


@pytest.fixture(scope="session")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One whose replicas need 20 ms a token: its longest answers take 20 s, unless somebody ends them."""
    arguments = ("--replica-device", "fake", "--replica-fake-tick-ms", "20")
    with server_process(tmp_path_factory.mktemp("slow-server"), *arguments) as process:
        yield process


@pytest.fixture
def slow_wire(slow_server: ServerProcess) -> Iterator[Wire]:
    with wire_to(slow_server) as wire:
        yield wire


def wire_to(server: ServerProcess, api_key: str | None = None) -> "OpenWire":
    return OpenWire(server.grpc, server.api_key if api_key is None else api_key)


class OpenWire(Wire):
    """A wire that closes its channel, and its sessions of the test model, at the end."""

    def __init__(self, address: str, api_key: str) -> None:
        metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        super().__init__(grpc.insecure_channel(address), metadata)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(grpc.RpcError):  # no key, no session, no server: nothing to stop
            self.stop()
        self.channel.close()
