"""The OpenAI door for callers that no library holds back: odd requests, odd connections, no key."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from tests.fault.test_server_life import VERY_SLOWLY
from tests.integration.api.conftest import MODEL, Wire, none_runs_to_its_end, wait_until, wire_to
from tests.server_process import ServerProcess, server_process
from tidemill_services.gateway.door import OPEN_PATHS
from tidemill_services.gateway.json_body import MAX_BODY_BYTES
from tidemill_services.gateway.public import public_routes

TEXTS, CHATS = "/v1/completions", "/v1/chat/completions"
ROUTES = [route for route in public_routes(None, None) if isinstance(route, Route)]  # type: ignore[arg-type]


@contextmanager
def asked(
    server: ServerProcess,
    path: str,
    body: bytes | str | dict[str, Any] | Iterator[bytes] | None = None,
    *,
    method: str = "POST",
    **headers: str | None,
) -> Iterator[http.client.HTTPResponse]:
    """One request on a connection of its own, with the key unless told otherwise."""
    lines = {"authorization": f"Bearer {server.api_key}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    content = json.dumps(body) if isinstance(body, dict) else body
    with closing(http.client.HTTPConnection(server.http, timeout=60)) as connection:
        connection.request(method, path, content, {name: value for name, value in lines.items() if value is not None})
        yield connection.getresponse()


def error_of(response: http.client.HTTPResponse) -> dict[str, Any]:
    error = json.loads(response.read())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith((".", ")")), error
    return error


def events_of(response: http.client.HTTPResponse) -> list[str]:
    return [event for event in response.read().decode().split("\n\n") if event]


def prompt(**fields: object) -> dict[str, Any]:
    return {"model": MODEL, "prompt": "on and on", "temperature": 0, "max_tokens": 1000, **fields}


def test_every_route_but_health_denies_whoever_has_no_key(server: ServerProcess) -> None:
    paths = [route.path.replace("{model:path}", MODEL) for route in ROUTES]
    assert {*OPEN_PATHS, TEXTS, CHATS, "/v1/models"} <= set(paths)
    keys = [None, "", "Bearer", "Bearer ", "Bearer tm_" + "0" * 43, "Basic abc", server.api_key, "Bearer \xff"]
    for path in [*paths, "/", "/v1", "/v2/models", "/healthz/", "//healthz", "/healthz%0a", "/%68ealthz/../v1/models"]:
        for method in ("GET", "POST", "HEAD", "DELETE", "OPTIONS"):
            for key in keys if method in ("GET", "POST") else keys[:1]:
                with asked(server, path, b"{}", method=method, authorization=key) as response:
                    if path in OPEN_PATHS:
                        assert response.status in (200, 405)
                        continue
                    assert response.status == 401, (method, path, key)
                    assert response.headers["www-authenticate"] == "Bearer"
                    if method != "HEAD":
                        assert error_of(response)["code"] in ("API_KEY_MISSING", "API_KEY_INVALID")


def test_one_accounts_session_pays_for_no_other_account(server: ServerProcess, wire: Wire, neighbours_key: str) -> None:
    wire.start()
    with asked(server, TEXTS, prompt(), authorization=f"Bearer {neighbours_key}") as response:
        assert (response.status, error_of(response)["code"]) == (409, "NO_SESSION")


def test_a_page_or_a_method_that_is_not_there_is_said_in_the_same_shape(server: ServerProcess) -> None:
    for method, path, status in (("GET", "/v1/none", 404), ("GET", CHATS, 405), ("POST", "/v1/models", 405)):
        with asked(server, path, method=method) as response:
            assert response.status == status
            assert error_of(response)["code"] == "UNIMPLEMENTED"
            assert response.headers["allow"] in ((None,) if status == 404 else ("POST", "GET, HEAD", "HEAD, GET"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"prompt": "\xc3"}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "a", "seed": ' + b"9" * 4000 + b"}",
        b'{"prompt": "a", "temperature": ' + b"9" * 4000 + b"}",
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a", "\\ud800": 1}',
        b'{"prompt": "a", "stop": "\\udfff"}',
        b'{"model": "\\ud800", "prompt": "a"}',
        b'{"model": "a\\u0000", "prompt": "a"}',
        b'{"prompt": 5}',
        b'{"prompt": []}',
        b'{"prompt": [1, 2]}',
        b'{"prompt": [[1]]}',
        b'{"prompt": "a", "n": true}',
        b'{"prompt": "a", "n": 129}',
        b'{"prompt": ["a", "b", "c"], "n": 100}',
        b'{"prompt": "a", "max_tokens": 1.0}',
        b'{"prompt": "a", "stream": 1}',
        b'{"prompt": "a", "stop": [[]]}',
        b'{"prompt": "a", "stream_options": {}}',
        b'{"prompt": "a", "stream": true, "stream_options": 5}',
        b'{"prompt": "a", "never_heard_of": 1}',
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_a_body_that_is_no_request_is_refused_typed(server: ServerProcess, wire: Wire, body: bytes) -> None:
    wire.start()
    with asked(server, TEXTS, body) as response:
        assert response.status in (400, 404)
        assert error_of(response)["code"] in ("FIELD_INVALID", "MODEL_NOT_FOUND")


@pytest.mark.parametrize("wait", ["-1", "nan", "1e3", "3601", "soon", "\xb2"])
def test_a_wait_that_is_no_time_is_refused(server: ServerProcess, wait: str) -> None:
    with asked(server, TEXTS, prompt(), x_tidemill_wait=wait) as response:
        assert (response.status, error_of(response)["param"]) == (400, "x-tidemill-wait")


def test_a_huge_body_is_refused_whether_announced_or_found_out(server: ServerProcess) -> None:
    huge = b'{"prompt": "' + b"a" * (10 << 20) + b'"}'
    for body in (huge, (huge[at : at + 65536] for at in range(0, len(huge), 65536))):
        with asked(server, TEXTS, body) as response:
            assert response.status == 413
            assert f"{MAX_BODY_BYTES:,}" in error_of(response)["message"]


def test_a_stream_says_that_it_waits_then_answers_and_ends_with_done(
    slow_server: ServerProcess, slow_wire: Wire
) -> None:
    slow_wire.start()
    with asked(slow_server, CHATS, prompt() | {"max_tokens": 3}) as response:
        assert error_of(response)["param"] == "messages"
    with asked(slow_server, TEXTS, prompt(max_tokens=3, stream=True), x_tidemill_wait="60") as response:
        assert response.headers["content-type"] == "text/event-stream"
        events = [event for event in events_of(response) if not event.startswith(":")]
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-1] == "length"


@pytest.mark.parametrize("fields", [{"stream": True}, {"stream": False}, {"stream": True, "n": 3}, {"n": 3}], ids=str)
def test_whoever_hangs_up_gives_the_places_back(slow_server: ServerProcess, slow_wire: Wire, fields: dict) -> None:
    slow_wire.start()
    list(slow_wire.generate())
    host, _, port = slow_server.http.rpartition(":")
    body = json.dumps(prompt(**fields)).encode()
    with (
        none_runs_to_its_end(slow_server, slow_wire),
        socket.create_connection((host, int(port)), timeout=60) as caller,
    ):
        caller.sendall(
            f"POST {TEXTS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {slow_server.api_key}\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        wait_until(lambda: slow_wire.model().demand == fields.get("n", 1), "the demand of all")
        if fields.get("stream"):
            assert b"200 OK" in caller.recv(65536)


def test_more_callers_than_slots_wait_for_a_place_in_a_warm_model(slow_server: ServerProcess, slow_wire: Wire) -> None:
    slow_wire.start()
    list(slow_wire.generate())
    statuses: list[int] = []

    def ask() -> None:
        with asked(slow_server, TEXTS, prompt(max_tokens=60)) as response:
            statuses.append(response.status)
            response.read()

    callers = [threading.Thread(target=ask) for _ in range(24)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert statuses == [200] * 24


def test_what_ends_from_outside_says_so_and_keeps_its_text(tmp_path: Path) -> None:
    settings = (*VERY_SLOWLY, "--stop-grace", "1", "--log-level", "debug")
    with server_process(tmp_path, *settings) as server, wire_to(server) as wire:
        wire.start()
        list(wire.generate())
        wholes: list[dict[str, Any]] = []

        def ask_for_the_whole() -> None:
            with asked(server, TEXTS, prompt()) as response:
                wholes.append(json.loads(response.read()))

        asking = threading.Thread(target=ask_for_the_whole)
        asking.start()
        with asked(server, TEXTS, prompt(stream=True)) as stopped:
            wait_until(lambda: wire.model().demand == 2, "the demand of both")
            wire.stop()
            events = events_of(stopped)
        asking.join()
        assert events[-1] == "data: [DONE]"
        assert json.loads(events[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "session_stopped"
        (choice,) = wholes[0]["choices"]
        assert choice["finish_reason"] == "session_stopped"
        assert choice["text"]
        wire.start()
        with asked(server, TEXTS, prompt(stream=True)) as cut:
            cut.readline()
            server.process.terminate()
            wait_until(lambda: _is_draining(server), "draining")
            events = events_of(cut)
        name, data = events[-1].split("\n")
        assert name == "event: error"
        assert json.loads(data.removeprefix("data: "))["error"]["code"] == "DRAINING"
        assert server.process.wait(60) == 0
    log = server.log.read_text()
    assert server.api_key not in log
    assert "on and on" not in log
    assert "ERROR" not in log


def _is_draining(server: ServerProcess) -> bool:
    with asked(server, "/v1/models", method="GET") as response:
        if response.status == 200:
            return False
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        return error_of(response)["code"] == "DRAINING"


def test_requests_are_counted_by_route_status_and_reason(server: ServerProcess) -> None:
    with asked(server, "/v1/models", method="GET") as response:
        response.read()
    with asked(server, "/v1/models/none-such", method="GET") as response:
        response.read()
    with closing(http.client.HTTPConnection(server.admin, timeout=60)) as connection:
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read().decode()
    assert 'tidemill_http_requests_total{reason="",route="/v1/models",status="200"}' in metrics
    assert 'reason="MODEL_NOT_FOUND",route="/v1/models/{model:path}",status="404"' in metrics
