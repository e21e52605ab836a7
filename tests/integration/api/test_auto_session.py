"""The OpenAI door opens a session by itself for keys that allow it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from tests.integration.api.conftest import MODEL, Wire, wait_until, wire_to
from tests.integration.api.test_openai_http import TEXTS, asked, error_of, prompt
from tests.keys import make_key
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import model_pb2, session_pb2

OTHER_MODEL = "tiny-llama-positions"


@dataclass
class Caller:
    """Somebody with a key of their own."""

    server: ServerProcess
    api_key: str
    wire: Wire

    def ask(self, **fields: object) -> tuple[int, str, str]:
        """Ask for a few tokens, and wait for the model; the status, the session that pays, and the error's code."""
        headers = {"authorization": f"Bearer {self.api_key}", "x_tidemill_wait": "60"} | {
            name: fields.pop(name) for name in ("x_tidemill_wait",) if name in fields
        }
        with asked(self.server, TEXTS, prompt(max_tokens=3) | fields, **headers) as response:
            name = response.headers["x-tidemill-session"] or ""
            if response.status != 200:
                return response.status, name, error_of(response)["code"]
            assert int(response.headers["x-tidemill-cost-microcredits"]) >= 0
            response.read()
            return 200, name, ""

    def sessions(self, model: str = MODEL) -> list[session_pb2.Session]:
        request = session_pb2.ListSessionsRequest(model=model)
        return list(self.wire.sessions.ListSessions(request, metadata=self.wire.metadata).sessions)


@pytest.fixture(scope="module")
def auto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, list[str]]]:
    """A server, and keys of accounts of their own that allow it."""
    folder = tmp_path_factory.mktemp("auto-session")
    keys = [make_key(folder, f"auto-{number}", auto_session=True) for number in range(4)]
    with server_process(folder, "--replica-device", "fake") as server:
        yield server, keys


@pytest.fixture
def caller(auto_server: tuple[ServerProcess, list[str]]) -> Iterator[Caller]:
    server, keys = auto_server
    api_key = keys.pop()
    with wire_to(server, api_key) as wire:
        yield Caller(server, api_key, wire)


def test_a_hundred_first_requests_at_once_open_one_session_that_pays_for_all(caller: Caller) -> None:
    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(lambda _: caller.ask(), range(100)))
    assert {status for status, _, _ in answers} == {200}
    (session,) = caller.sessions()
    assert {name for _, name, _ in answers} == {session.name}
    assert session.limits.idle_timeout.seconds == 300
    assert not session.bill.final


def test_it_ends_when_it_is_idle_and_the_next_request_opens_another(caller: Caller) -> None:
    _, first, _ = caller.ask()
    wait_until(lambda: caller.sessions()[0].state == session_pb2.Session.STATE_ACTIVE, "ACTIVE")
    update = session_pb2.UpdateSessionRequest(
        session=session_pb2.Session(name=first, limits=session_pb2.SessionLimits(idle_timeout=Duration(seconds=5))),
        update_mask=FieldMask(paths=["limits.idle_timeout"]),
    )
    caller.wire.sessions.UpdateSession(update, metadata=caller.wire.metadata)
    wait_until(lambda: caller.sessions()[0].bill.final, "an end by itself")
    assert caller.sessions()[0].end_reason == session_pb2.Session.END_REASON_IDLE
    status, second, _ = caller.ask()
    assert status == 200
    assert second != first
    assert caller.wire.start().session.name == second  # it is the key's session as any other


def test_who_is_refused_pays_for_no_session(caller: Caller) -> None:
    status, _, code = caller.ask(model=OTHER_MODEL, x_tidemill_wait="0")
    assert (status, code) == (503, "MODEL_COLD")
    for wrong, reason in (
        ({"prompt": "many words " * 2000}, "CONTEXT_EXCEEDED"),
        ({"prompt": ["fine", ""]}, "PROMPT_EMPTY"),
        ({"model": "none-such"}, "MODEL_NOT_FOUND"),
    ):
        assert caller.ask(**{"model": OTHER_MODEL, **wrong})[2] == reason
    assert caller.sessions(OTHER_MODEL) == []
    request = model_pb2.GetModelRequest(name=OTHER_MODEL)
    wait_until(  # it was woken all the same
        lambda: (
            caller.wire.models.GetModel(request, metadata=caller.wire.metadata).state == model_pb2.Model.STATE_READY
        ),
        "READY",
        60,
    )
    assert caller.ask(model=OTHER_MODEL, x_tidemill_wait="0")[0] == 200
    stop = session_pb2.StopSessionRequest(model=OTHER_MODEL, all_holders=True)
    caller.wire.sessions.StopSession(stop, metadata=caller.wire.metadata)


def test_the_local_users_key_allows_it_when_the_server_is_told_so_at_its_start(tmp_path: Path) -> None:
    for options, status in ((("--auto-session",), 200), ((), 409)):
        with server_process(tmp_path, "--replica-device", "fake", *options) as server, wire_to(server) as wire:
            assert Caller(server, server.api_key, wire).ask()[0] == status
