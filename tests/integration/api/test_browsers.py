"""The OpenAI door as a page of another origin meets it in a browser."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.integration.api.conftest import MODEL, wire_to
from tests.server_process import ServerProcess, server_process

OURS, OTHERS = "https://chat.example.org", "https://other.example.org"
CHATS, TEXTS = "/v1/chat/completions", "/v1/completions"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-tidemill-wait,x-stainless-os",
}


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("open-server")
    with server_process(folder, "--http-origins", OURS, "--replica-device", "fake", "--replica-spares", "0") as process:
        yield process


def answer(
    server: ServerProcess, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, dict[str, str]]:
    """The status and the headers of one request."""
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(http.client.HTTPConnection(server.http, timeout=60)) as connection:
        connection.request(method, path, None if body is None else json.dumps(body), lines)
        response = connection.getresponse()
        response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}


def test_a_page_of_a_named_origin_may_ask_and_read_what_it_is_told(open_server: ServerProcess) -> None:
    status, told = answer(open_server, "OPTIONS", CHATS, origin=OURS, **PREFLIGHT)
    assert (status, told["access-control-allow-origin"]) == (200, OURS)
    assert set(PREFLIGHT["access-control-request-headers"].split(",")) <= {
        name.strip() for name in told["access-control-allow-headers"].split(",")
    }
    key = f"Bearer {open_server.api_key}"
    with wire_to(open_server) as wire:
        wire.start()
        list(wire.generate())
        for stream in (False, True):
            body = {"model": MODEL, "prompt": "a", "max_tokens": 3, "stream": stream}
            status, told = answer(open_server, "POST", TEXTS, body, origin=OURS, authorization=key)
            assert (status, told["access-control-allow-origin"]) == (200, OURS)
            assert {"x-request-id", "x-tidemill-session"} <= {
                name.strip() for name in told["access-control-expose-headers"].split(",")
            }
            assert told["x-tidemill-session"].startswith("sessions/")
        wire.stop()


def test_it_needs_a_key_as_everyone_and_may_read_why_it_was_refused(open_server: ServerProcess) -> None:
    for method, path in (("GET", "/v1/models"), ("POST", TEXTS), ("GET", "/v1/none")):
        status, told = answer(open_server, method, path, origin=OURS)
        assert (status, told["access-control-allow-origin"]) == (401, OURS)


def test_a_page_of_another_origin_may_read_nothing(open_server: ServerProcess) -> None:
    status, told = answer(open_server, "OPTIONS", CHATS, origin=OTHERS, **PREFLIGHT)
    assert (status, told.get("access-control-allow-origin")) == (400, None)
    key = f"Bearer {open_server.api_key}"
    status, told = answer(open_server, "GET", "/v1/models", origin=OTHERS, authorization=key)
    assert (status, told.get("access-control-allow-origin")) == (200, None)


def test_nobodys_page_is_let_in_unless_the_server_is_told_so(server: ServerProcess) -> None:
    key = f"Bearer {server.api_key}"
    for method, path in (("GET", "/v1/models"), ("OPTIONS", CHATS)):
        status, told = answer(server, method, path, origin=OURS, authorization=key, **PREFLIGHT)
        assert status in (200, 405)
        assert not any(name.startswith("access-control") for name in told)
