"""The words that a plan speaks.

The logic of every method is written once, as a *plan*: a generator that yields steps (a call, a read, a pause), is sent
their replies, and returns the method's result. What a step fails with is thrown into the plan as an error of ours. The
transports carry the steps out, one with blocking calls and one with asyncio; neither knows what a session is.
"""

import random
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tidemill.errors import DrainingError, FieldInvalidError, StoreUnavailableError, UnreachableError
from tidemill.methods import Method, Reply, Request

Item = TypeVar("Item")
Result = TypeVar("Result")
Built = TypeVar("Built", bound=Message)


class OpenCall(Protocol):
    """A call that has been started, and whose answer is read apart: a stream, or one message."""

    def cancel(self) -> None:
        """End it, and forget its farewell; may be called at any time, from any thread, more than once."""

    def leave(self) -> None:
        """End it for good: as `cancel`, and its farewell is sent once; nothing waits for that, nor hears of it."""


@dataclass(frozen=True, slots=True)
class Unary:
    """Call and wait for the one answer. Replied with the message."""

    method: Method[Any, Any]
    request: Message
    timeout: float | None
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Open:
    """Start a call that somebody may want to end before its answer is there. Replied with its OpenCall."""

    method: Method[Any, Any]
    request: Message
    timeout: float | None
    """Seconds for the whole answer."""
    farewell: Unary | None = None
    """What tells the server that nobody comes back, where what it does goes on without the call."""


@dataclass(frozen=True, slots=True)
class Read:
    """Wait for the stream's next message, or the one answer. Replied with it, or with None at the stream's end."""

    call: OpenCall


@dataclass(frozen=True, slots=True)
class Sleep:
    """Pause."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand an item to who iterates."""

    item: Any


Step: TypeAlias = Unary | Open | Read | Sleep | Emit
Plan: TypeAlias = Generator[Step, Any, Result]


class Deadline:
    """A moment by which a method must be done; never, when the timeout is None."""

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None and not (_is_number(timeout) and timeout > 0):
            raise FieldInvalidError(f"timeout is {timeout!r}; it may be a number of seconds above 0", field="timeout")
        self._at = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Seconds left, at least a millisecond, so that the next call fails by its own deadline; None for no limit."""
        return None if self._at is None else max(0.001, self._at - time.monotonic())

    def allows(self, seconds: float) -> bool:
        """Whether a pause of that length leaves time for another try."""
        remaining = self.remaining()
        return remaining is None or seconds < remaining


class Line:
    """Lets a stream be closed from outside, also from another thread, whatever its plan is doing."""

    def __init__(self) -> None:
        self.is_closed = False
        self._call: OpenCall | None = None

    def attach(self, call: OpenCall) -> None:
        """Name the call that `close` has to end."""
        self._call = call
        if self.is_closed:
            call.leave()

    def close(self) -> None:
        """End the call for good, or see to it that it ends as soon as it is opened."""
        self.is_closed = True
        self.leave()

    def leave(self) -> None:
        """End the call for good, if there is one."""
        if self._call is not None:
            self._call.leave()

    def release(self) -> None:
        """The stream has ended: closing it means nothing to the server any more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None


RETRIED = (UnreachableError, DrainingError, StoreUnavailableError)
LONGEST_PAUSE = 5.0
"""Seconds; a server that asks for more is not waited for."""


def retried(attempt: Callable[[], Plan[Result]], deadline: Deadline) -> Plan[Result]:
    """Do what may be repeated; while nothing answers, again a few times with growing pauses."""
    pauses = _pauses()
    while True:
        try:
            return (yield from attempt())
        except RETRIED as error:
            pause = max(next(pauses, LONGEST_PAUSE), error.retry_after.total_seconds() if error.retry_after else 0.0)
            if pause >= LONGEST_PAUSE or not deadline.allows(pause):
                raise
        yield Sleep(pause)


def unary(method: Method[Request, Reply], request: Request, deadline: Deadline) -> Plan[Reply]:
    """Call an idempotent method, again while nothing answers."""

    def attempt() -> Plan[Reply]:
        reply: Reply = yield Unary(method, request, deadline.remaining())
        return reply

    return (yield from retried(attempt, deadline))


def opened(
    method: Method[Request, Reply], request: Request, deadline: Deadline, line: Line | None = None
) -> Plan[tuple[OpenCall, Reply | None]]:
    """Open a stream that may be repeated, again while nothing answers; `line` is told of each call.

    Returns the call, which is then the caller's to cancel, and its first message.
    """

    def attempt() -> Plan[tuple[OpenCall, Reply | None]]:
        call: OpenCall = yield Open(method, request, deadline.remaining())
        if line is not None:
            line.attach(call)
        try:
            first: Reply | None = yield Read(call)
        except BaseException:
            call.cancel()
            raise
        return call, first

    return (yield from retried(attempt, deadline))


def _pauses() -> Iterator[float]:
    for seconds in (0.1, 0.2, 0.4):
        yield spread(seconds)


def spread(seconds: float) -> float:
    """About that long, so that clients which lost the same server do not come back in step."""
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 -- it spreads retries, it keeps no secret


def build(kind: type[Built], path: str = "", /, **fields: Any) -> Built:
    """A message with those fields; None stays absent. `path`, such as "options.", is where it lies in its request.

    Raises FieldInvalidError naming a field that may not be so.
    """
    message = kind()
    for name, value in fields.items():
        if value is None:
            continue
        try:
            message.MergeFrom(kind(**{name: value}))
        except (AttributeError, TypeError, ValueError) as error:
            raise FieldInvalidError(f"{name} may not be {_short(value)}: {error}", field=f"{path}{name}") from None
    return message


def timestamp(moment: object, field: str) -> Timestamp:
    """A time as the wire wants it. Raises FieldInvalidError naming the field when it is no aware datetime."""
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise FieldInvalidError(f"{field.rpartition('.')[2]} must be a datetime with a time zone.", field=field)
    message = Timestamp()
    try:
        message.FromDatetime(moment.astimezone(UTC))
    except OverflowError:
        raise FieldInvalidError(f"{moment} is not within the years 1 to 9999 of UTC.", field=field) from None
    return message


def check_count(count: object, name: str) -> None:
    """Raises FieldInvalidError when it is no whole number of at least 1."""
    if not isinstance(count, int) or count < 1:
        raise FieldInvalidError(f"{name} is {_short(count)}; it must be a whole number of at least 1.", field=name)


def request_id() -> str:
    """A new name for a request, by which the server knows a repeat."""
    return uuid.uuid4().hex


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
