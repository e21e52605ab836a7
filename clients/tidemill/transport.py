"""Carries plans out with blocking calls."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, cast
from weakref import ref

import grpc

from tidemill import channel
from tidemill.connection import Connection
from tidemill.errors import CallCancelledError, ConfigError
from tidemill.methods import Method
from tidemill.plan_run import PlanRun
from tidemill.statuses import CallFailure, error_of_call
from tidemill.steps import Emit, Open, Plan, Read, Sleep, Step, Unary

Result = TypeVar("Result")


class _SyncCall:
    """A call to be opened, and what is said when it is left for good."""

    def __init__(self, say_farewell: Callable[[], None] | None, *, streams: bool) -> None:
        self._call: Any = None
        self._streams = streams
        self._say_farewell = say_farewell

    def start(self, method: Any, step: Open, metadata: Any) -> None:
        """Start it, once. What interrupts this may come when the server has it already."""
        start = method if self._streams else method.future
        self._call = start(step.request, timeout=step.timeout, metadata=metadata)

    def cancel(self) -> None:
        self._say_farewell = None
        if self._call is not None:
            self._call.cancel()

    def leave(self) -> None:
        say_farewell = self._say_farewell
        self.cancel()
        if say_farewell is not None:
            say_farewell()

    def read(self) -> Any:
        if self._streams:
            return next(self._call, None)
        try:
            return self._call.result()
        except grpc.FutureCancelledError:  # by us: `leave` or `close` of another thread
            raise CallCancelledError from None


class SyncTransport:
    """One channel, opened at the first call, used by any number of threads."""

    def __init__(self, connection: Connection, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._connection = connection
        self._sleep = sleep
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._calls: dict[str, Any] = {}
        # Calls that may have a farewell to say; no WeakSet: another thread may add one while `close` looks at all.
        self._open: set[ref[_SyncCall]] = set()
        self._farewells: set[Any] = set()  # that are on their way
        self._is_closed = False

    def run(self, plan: Plan[Result]) -> Result:
        """Carry the plan out to its end; what it emits is dropped."""
        run = PlanRun(plan)
        try:
            while (step := run.next_step()) is not None:
                self.perform(step, run)
        except BaseException:
            run.abandon()
            raise
        return run.result

    def perform(self, step: Step, run: PlanRun[Any]) -> None:
        """Carry one step out and give the plan what came of it."""
        try:
            run.answer(self._opened(step, run) if isinstance(step, Open) else self._perform(step))
        except CallCancelledError as error:
            run.fail(error)
        except grpc.RpcError as failure:
            name = getattr(getattr(step, "request", None), "request_id", "")
            run.fail(error_of_call(cast("CallFailure", failure), self._connection, request_id=name))
        except ValueError:  # gRPC's, where another thread closes the channel in this very moment
            if not self._is_closed:
                raise
            raise ConfigError("This client is closed.") from None
        except RuntimeError as error:
            # A Ctrl-C that comes while gRPC's lock changes hands ends in "cannot release un-acquired lock".
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise

    def _perform(self, step: Step) -> Any:
        match step:
            case Unary():
                return self._call(step.method)(
                    step.request, timeout=step.timeout, metadata=channel.metadata(self._connection)
                )
            case Read():
                return cast("_SyncCall", step.call).read()
            case Sleep():
                self._sleep(step.seconds)
            case Emit():
                pass
        return None

    def _call(self, method: Method[Any, Any]) -> Any:
        """The channel's callable for a method, made once."""
        found = self._calls.get(method.path)
        if found is None:
            with self._lock:
                make = self._open_channel().unary_stream if method.streams else self._open_channel().unary_unary
                found = self._calls[method.path] = make(
                    method.path,
                    request_serializer=method.request.SerializeToString,
                    response_deserializer=method.reply.FromString,
                )
        return found

    def _opened(self, step: Open, run: PlanRun[Any]) -> _SyncCall:
        """Open a call; the run has it before the server does, since a Ctrl-C may come between the two."""
        method, farewell = self._call(step.method), step.farewell
        opened = _SyncCall(None if farewell is None else partial(self._say, farewell), streams=step.method.streams)
        run.hold(opened)
        if farewell is not None:
            self._open.add(ref(opened, self._open.discard))
        opened.start(method, step, channel.metadata(self._connection))
        return opened

    def _say(self, farewell: Unary) -> None:
        """Call, and hear nothing of it. May come at any moment, from the garbage collector too: it takes no lock."""
        open_channel, method = self._channel, farewell.method
        if open_channel is None:
            return
        say = open_channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.reply.FromString,
        )
        try:
            said = say.future(farewell.request, timeout=farewell.timeout, metadata=channel.metadata(self._connection))
        except ValueError:  # the channel was closed just now
            return
        self._farewells.add(said)
        said.add_done_callback(self._farewells.discard)

    def _open_channel(self) -> grpc.Channel:
        if self._is_closed:
            raise ConfigError("This client is closed.")
        if self._channel is None:
            self._channel = channel.open_channel(self._connection)
        return self._channel

    def close(self) -> None:
        """Close the channel, farewells sent; calls that run are cancelled."""
        for held in tuple(self._open):
            if (call := held()) is not None:
                call.leave()
        for said in tuple(self._farewells):
            with suppress(grpc.FutureCancelledError):
                said.exception()  # its deadline ends it
        with self._lock:
            self._is_closed = True
            self._calls.clear()
            if self._channel is not None:
                self._channel.close()
                self._channel = None
