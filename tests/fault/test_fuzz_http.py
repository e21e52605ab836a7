"""Every page of both HTTP ports with bodies of any content and with bytes that are no request: no 5xx but 503."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from starlette.routing import BaseRoute, Route

from tests.fault.figures import counts
from tests.fuzzing.batches import bases
from tests.fuzzing.bodies import CHAT_FIELDS, DEEP_BODIES, RIGHT, TEXT_FIELDS, bodies, varied_body
from tests.fuzzing.damage import damaged
from tests.fuzzing.http import exchange, is_harm, odd_requests, request_bytes
from tests.fuzzing.seeds import chance_of
from tests.fuzzing.target import Target, num_open_files, target_of
from tests.integration.api.conftest import wait_until, wire_to
from tests.scale import count
from tests.server_process import server_process
from tidemill_services.gateway.health import admin_application
from tidemill_services.gateway.public import public_routes

pytestmark = pytest.mark.fault

SPARE_FILES = 5  # what a server opens when it is first needed

PATH_PARTS = ("tiny-llama", "models%2Ftiny-llama", "", "..%2f..%2fetc", "%00", "%ff%fe", "x" * 3000, "a/b/c", "?q=%zz")
PUBLIC: list[Any] = public_routes(None, None)  # type: ignore[arg-type]  # only their paths are looked at
SCRAPED: dict[str, Any] = {"/metrics": None, "/metrics/billing": None}  # only their paths, too
ADMIN: list[Any] = admin_application(SCRAPED, lambda: True, dict).routes
FIELDS = {"/v1/chat/completions": CHAT_FIELDS, "/v1/completions": TEXT_FIELDS}
REQUESTS_OF_A_BODY = 10
NUM_VARIED = 4  # of them; five are damaged
NUM_BODIES = count(15, full=600)
REQUESTS_AT_ONCE = 64
NUM_ODD = count(2, full=110)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("fuzzed")
    with server_process(folder, "--replica-device", "fake") as server, target_of(server) as target:
        target.check_at_rest()
        yield target


@pytest.fixture
def key(target: Target) -> Iterator[tuple[bytes, bytes]]:
    """A key with an open session: what is right is generated."""
    with wire_to(target.server) as wire:
        wire.start()
        yield b"Authorization", f"Bearer {target.server.api_key}".encode()


def send(target: Target, address: str, requests: Sequence[bytes], patience: float = 5.0) -> list[list[int]]:
    """Send requests, each over a connection of its own, all at once; their statuses, none of which says harm."""

    async def all_at_once() -> list[list[int]]:
        return await asyncio.gather(*(exchange(address, request, patience) for request in requests))

    found = target.run(all_at_once())
    for request, statuses in zip(requests, found, strict=True):
        assert not any(map(is_harm, statuses)), (request[:2000], statuses)
    target.check()
    return found


def paths_of(route: BaseRoute) -> list[str]:
    assert isinstance(route, Route)
    head, brace, _ = route.path.partition("{")
    return [head + part for part in PATH_PARTS] if brace else [route.path]


@pytest.mark.parametrize("path", FIELDS)
def test_no_body_brings_a_page_to_an_internal_error(
    target: Target, key: tuple[bytes, bytes], path: str, note: Callable[..., None]
) -> None:
    found = Counter[int]()
    right = request_bytes("POST", path, json.dumps(RIGHT[path]).encode(), [key])
    assert send(target, target.server.http, [right], 60) == [[200]], "nothing was generated"

    for chance, body in bases(bodies(FIELDS[path]), path, NUM_BODIES):
        whole = [body, *(varied_body(chance, RIGHT[path], FIELDS[path]) for _ in range(NUM_VARIED))]
        parts = whole + [damaged(chance, chance.choice(whole)) for _ in range(REQUESTS_OF_A_BODY - len(whole))]
        requests = [request_bytes("POST", path, part, [key]) for part in parts]
        answers = send(target, target.server.http, requests, chance.choice((0.02, 5.0)))
        found.update(status for statuses in answers for status in statuses)
    target.check_at_rest()
    note(statuses=counts(map(str, found.elements())))


@pytest.mark.parametrize("path", FIELDS)
def test_bodies_that_no_parser_likes_are_wrong_requests(target: Target, key: tuple[bytes, bytes], path: str) -> None:
    requests = [request_bytes("POST", path, body, [key]) for body in DEEP_BODIES]
    assert send(target, target.server.http, requests, 60) == [[400]] * len(DEEP_BODIES)


@pytest.mark.parametrize("port", ["http", "admin"])
def test_no_request_brings_a_port_to_an_internal_error(
    target: Target, key: tuple[bytes, bytes], port: str, note: Callable[..., None]
) -> None:
    chance = chance_of(port)
    address = getattr(target.server, port)
    num_files = num_open_files(target.server.process.pid)
    body = json.dumps({"model": "tiny-llama", "prompt": "the tide", "max_tokens": 3}).encode()
    routes = {"http": PUBLIC, "admin": ADMIN}[port]
    requests: list[bytes] = []
    found = Counter[int]()
    right = [request_bytes("GET", route.path, b"", [key]) for route in routes if "{" not in route.path]
    assert [200] in send(target, address, right, 60), "no page was shown"
    for path in [path for route in routes for path in paths_of(route)] * NUM_ODD:
        odd = odd_requests(chance, path, body, key)
        requests += [*odd, *(damaged(chance, each) for each in odd)]
    for start in range(0, len(requests), REQUESTS_AT_ONCE):
        answers = send(target, address, requests[start : start + REQUESTS_AT_ONCE], 0.3)
        found.update(status for statuses in answers for status in statuses)
    target.check_at_rest()
    note(requests=len(requests), statuses=counts(map(str, found.elements())))
    wait_until(
        lambda: num_open_files(target.server.process.pid) <= num_files + SPARE_FILES,
        "that every connection was given back",
        90,
    )
