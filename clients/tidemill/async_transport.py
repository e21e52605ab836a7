"""Carries plans out with asyncio."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, cast
from weakref import WeakSet

import grpc

from tidemill import channel
from tidemill.connection import Connection
from tidemill.errors import CallCancelledError, ConfigError
from tidemill.methods import Method
from tidemill.plan_run import PlanRun
from tidemill.statuses import CallFailure, error_of_call
from tidemill.steps import Emit, Open, Plan, Read, Sleep, Step, Unary

Result = TypeVar("Result")


class _AioCall:
    """An open call that remembers whether it was we who ended it, since asyncio cannot tell that from a lost task."""

    def __init__(self, call: Any, say_farewell: Callable[[], None] | None, *, streams: bool) -> None:
        self._call = call
        self._streams = streams
        self._say_farewell = say_farewell
        self._is_cancelled = False

    def cancel(self) -> None:
        self._is_cancelled = True
        self._say_farewell = None
        self._call.cancel()

    def leave(self) -> None:
        say_farewell = self._say_farewell
        self.cancel()
        if say_farewell is not None:
            say_farewell()

    async def read(self) -> Any:
        try:
            message = await (self._call.read() if self._streams else self._call)
        except asyncio.CancelledError:
            if self._is_cancelled:
                raise CallCancelledError from None
            raise
        return None if message is grpc.aio.EOF else message


class AsyncTransport:
    """One channel, opened at the first call, used by any number of tasks of one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, Any] = {}  # of the channel, by the path of the method
        self._open: WeakSet[_AioCall] = WeakSet()  # calls that may have a farewell to say
        self._farewells: set[Any] = set()  # that are on their way
        self._is_closed = False

    async def run(self, plan: Plan[Result]) -> Result:
        """Carry the plan out to its end; what it emits is dropped."""
        run = PlanRun(plan)
        try:
            while (step := run.next_step()) is not None:
                await self.perform(step, run)
        except BaseException:
            run.abandon()
            raise
        return run.result

    async def perform(self, step: Step, run: PlanRun[Any]) -> None:
        """Carry one step out and give the plan what came of it."""
        try:
            run.answer(await self._perform(step))
        except CallCancelledError as error:
            run.fail(error)
        except grpc.RpcError as failure:
            name = getattr(getattr(step, "request", None), "request_id", "")
            run.fail(error_of_call(cast("CallFailure", failure), self._connection, request_id=name))

    async def _perform(self, step: Step) -> Any:
        match step:
            case Unary():
                return await self._start(step.method, step.request, step.timeout)
            case Open():
                call = self._start(step.method, step.request, step.timeout)
                return self._opened(call, step)
            case Read():
                return await cast("_AioCall", step.call).read()
            case Sleep():
                await asyncio.sleep(step.seconds)
            case Emit():
                pass
        return None

    def _start(self, method: Method[Any, Any], request: Any, timeout: float | None) -> Any:
        if self._is_closed:
            raise ConfigError("This client is closed.")
        call = self._calls.get(method.path) or self._call(method)
        return call(request, timeout=timeout, metadata=channel.metadata(self._connection))

    def _call(self, method: Method[Any, Any]) -> Any:
        """The channel's callable for a method, made once."""
        if self._channel is None:
            self._channel = channel.open_aio_channel(self._connection)
        make = self._channel.unary_stream if method.streams else self._channel.unary_unary
        made = self._calls[method.path] = make(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.reply.FromString,
        )
        return made

    def _opened(self, call: Any, step: Open) -> _AioCall:
        if step.farewell is None:
            return _AioCall(call, None, streams=step.method.streams)
        opened = _AioCall(call, partial(self._say, step.farewell), streams=step.method.streams)
        self._open.add(opened)
        return opened

    def _say(self, farewell: Unary) -> None:
        """Call, and hear nothing of it. May come when the loop has ended: then there is nothing to call with."""
        with suppress(RuntimeError, ConfigError):
            asyncio.get_running_loop()
            said = self._start(farewell.method, farewell.request, farewell.timeout)
            self._farewells.add(said)
            said.add_done_callback(self._farewells.discard)

    async def close(self) -> None:
        """Close the channel, farewells sent; calls that run are cancelled."""
        for call in tuple(self._open):
            call.leave()
        self._is_closed = True
        for said in tuple(self._farewells):
            await said.code()  # its deadline ends it
        self._calls.clear()
        if self._channel is not None:
            await self._channel.close()
            self._channel = None
