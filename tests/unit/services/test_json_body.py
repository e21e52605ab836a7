import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from tidemill_services.gateway import json_body
from tidemill_services.gateway.http_errors import BodyTooLargeError, BodyTooSlowError, error_response
from tidemill_services.gateway.json_body import MAX_BODY_BYTES, read_object


def request(receive: Callable[[], Awaitable[Message]], **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw}, receive)


def sending(parts: Iterable[bytes]) -> Callable[[], Awaitable[Message]]:
    """Sends the parts, then goes away without an end."""
    left = iter(parts)

    async def receive() -> Message:
        part = next(left, None)
        return (
            {"type": "http.disconnect"} if part is None else {"type": "http.request", "body": part, "more_body": True}
        )

    return receive


async def test_what_is_announced_as_too_large_is_refused_without_reading_it() -> None:
    with pytest.raises(BodyTooLargeError):
        await read_object(request(sending([]), content_length=str(MAX_BODY_BYTES + 1)))


async def test_what_turns_out_to_be_too_large_is_refused_when_it_does() -> None:
    with pytest.raises(BodyTooLargeError):
        await read_object(request(sending([b" " * MAX_BODY_BYTES, b" "]), transfer_encoding="chunked"))


async def test_a_body_that_breaks_off_is_nobodys_request() -> None:
    with pytest.raises(ClientDisconnect):
        await read_object(request(sending([b'{"prompt": "a"}'])))


async def test_a_body_that_does_not_come_is_refused_and_its_connection_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "BODY_SECONDS", 0.0)

    async def never() -> Message:
        return await asyncio.get_running_loop().create_future()

    with pytest.raises(BodyTooSlowError) as refused:
        await read_object(request(never))
    response = error_response(refused.value)
    assert (response.status_code, response.headers["connection"]) == (408, "close")
