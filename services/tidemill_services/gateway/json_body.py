"""Reads the JSON object of a request, within limits of size, time and form."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, NoReturn

from starlette.requests import Request

from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.gateway.http_errors import BodyTooLargeError, BodyTooSlowError

MAX_BODY_BYTES = 4 << 20  # as much as one gRPC message may have
BODY_SECONDS = 30.0  # for all of it to come


async def read_object(request: Request) -> Mapping[str, object]:
    """The JSON object that is the request's body. Raises FieldInvalidError, starlette's ClientDisconnect."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _read(request)
    except TimeoutError:
        raise BodyTooSlowError(f"The request's body did not come within {BODY_SECONDS:g} seconds.") from None
    try:
        value = json.loads(body.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise FieldInvalidError("The request's body is not UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise FieldInvalidError(f"The request's body is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise FieldInvalidError("The request's body is not a JSON object.")
    return value


async def _read(request: Request) -> bytes:
    """What is announced or found to be too large is refused at once; the server discards the rest of it."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and len(announced) < 20 and int(announced) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise _too_large()
    return bytes(body)


def _too_large() -> BodyTooLargeError:
    return BodyTooLargeError(f"The request's body is too large: it may have {MAX_BODY_BYTES:,} bytes.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


class Fields:
    """Takes the fields of a JSON object one by one; null is as good as absent. What is left was asked of nobody.

    `path` is the object's own place in the request. Each method raises FieldInvalidError with the field's path.
    """

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, dict):
            raise FieldInvalidError(f"{path} must be an object.", field=path)
        self._left = dict(value)
        self._prefix = f"{path}." if path else ""

    def take(self, name: str) -> Any:
        """The field as it came."""
        return self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        """A string."""
        value = self.take(name)
        return None if value is None else as_text(value, self._prefix + name)

    def flag(self, name: str, *, absent: bool = False) -> bool:
        """A boolean; `absent` is what it means to leave it out."""
        value = self.take(name)
        if not isinstance(value, bool | None):
            self.refuse(name, "must be true or false")
        return absent if value is None else value

    def integer(self, name: str, lowest: int, highest: int) -> int | None:
        """A whole number within limits."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            self.refuse(name, f"must be a whole number, {lowest:,} to {highest:,}")
        return value

    def number(self, name: str, lowest: float, highest: float) -> float | None:
        """A number within limits."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not lowest <= value <= highest:
            self.refuse(name, f"must be a number, {lowest:g} to {highest:g}")
        return float(value)

    def unserved(self, name: str, *neutral: object) -> None:
        """Refuse a field that asks for what the engine does not have, unless its value asks for nothing."""
        value = self.take(name)
        if value is not None and not any(type(value) is type(each) and value == each for each in neutral):
            named = [each for place, each in enumerate(neutral) if each not in neutral[:place]]  # 0 and 0.0 are one
            allowed = " or ".join(json.dumps(each) for each in (*named, None))
            self.refuse(name, f"is not served: leave it out, or send {allowed}")

    def refuse_rest(self) -> None:
        """Refuse what nobody took."""
        for name in self._left:
            self.refuse(name, "is not known here")

    def refuse(self, name: str, why: str) -> NoReturn:
        """Refuse a field."""
        path = self._prefix + name[:100]
        raise FieldInvalidError(f"{path} {why}.", field=path)


def as_text(value: object, path: str) -> str:
    """A string that can be written as UTF-8."""
    if not isinstance(value, str):
        raise FieldInvalidError(f"{path} must be a string.", field=path)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FieldInvalidError(f"{path} holds half of a surrogate pair, which is no text.", field=path) from None
    return value
