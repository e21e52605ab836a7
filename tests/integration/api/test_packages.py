"""What a package on disk may do to a running server: nothing to prices, sessions and models; a typed end to prompts."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.integration.api.conftest import Wire, wire_to
from tests.integration.api.test_refusals import refusal_of
from tests.server_process import MODELS, server_process
from tidemill.v1 import model_pb2, session_pb2

NAME = "drifter"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package that a test may change; the folder that holds it is given to the server."""
    folder = tmp_path / "models" / NAME
    shutil.copytree(MODELS / "tiny-llama", folder)
    manifest = folder / "model.toml"
    manifest.write_text(manifest.read_text().replace('name = "tiny-llama"', f'name = "{NAME}"'))
    return folder


@contextmanager
def serving(package: Path) -> Iterator[Wire]:
    folders = ("--models", str(package.parent), "--replica-device", "fake")
    with server_process(package.parents[1] / "data", *folders) as server, wire_to(server) as wire:
        yield wire


def get_model(wire: Wire) -> model_pb2.Model:
    return wire.models.GetModel(model_pb2.GetModelRequest(name=NAME), metadata=wire.metadata)


def test_the_price_that_was_registered_is_charged_whatever_the_package_says_now(package: Path) -> None:
    with serving(package) as wire:
        manifest = package / "model.toml"
        manifest.write_text(manifest.read_text().replace("session_per_second = 10_000", "session_per_second = 777_777"))
        price = wire.start(model=NAME).session.bill.price_microcredits_per_second
        assert price == get_model(wire).prices.session_microcredits_per_second == 10_000


def test_a_package_that_changed_takes_no_prompts_until_the_server_is_restarted(package: Path) -> None:
    with serving(package) as wire:
        manifest = package / "model.toml"
        manifest.write_text(manifest.read_text().replace("max_tokens = 64", "max_tokens = 65"))
        wire.start(model=NAME)
        refusal = refusal_of(lambda: list(wire.generate(model=NAME)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_FAILED")
        assert "restarted" in refusal.message
    with serving(package) as wire:
        assert list(wire.generate(model=NAME))[-1].HasField("end")


def test_a_damaged_tokenizer_is_told_without_the_servers_paths(package: Path) -> None:
    with serving(package) as wire:
        tokenizer = package / "tokenizer.json"
        tokenizer.write_bytes(b"!" * tokenizer.stat().st_size)
        wire.start(model=NAME)
        refusal = refusal_of(lambda: list(wire.generate(model=NAME)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_FAILED")
        assert NAME in refusal.message
        assert str(package) not in refusal.message


def test_a_session_of_a_model_whose_package_is_gone_can_be_stopped_and_its_model_too(package: Path) -> None:
    with serving(package) as wire:
        name = wire.start(model=NAME).session.name
    shutil.rmtree(package)
    with serving(package) as wire:
        assert get_model(wire).open_sessions == 1
        refusal = refusal_of(lambda: list(wire.generate(model=NAME)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_FAILED")
        stopped = wire.stop(model=NAME)
        assert (stopped.session.name, stopped.session.bill.final) == (name, True)
        again = wire.start(model=NAME).session.name
        wire.models.StopModel(model_pb2.StopModelRequest(name=NAME, force=True), metadata=wire.metadata)
        request = session_pb2.GetSessionRequest(name=again)
        assert (
            wire.sessions.GetSession(request, metadata=wire.metadata).end_reason == session_pb2.Session.END_REASON_ADMIN
        )
