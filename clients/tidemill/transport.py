"""Carries plans out with blocking calls."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import grpc

from tidemill import channel
from tidemill.connection import Connection
from tidemill.errors import ConfigError
from tidemill.methods import Method
from tidemill.plan_run import PlanRun
from tidemill.statuses import CallFailure, error_of_call
from tidemill.steps import Emit, Open, Plan, Read, Sleep, Step, Unary

Result = TypeVar("Result")


class SyncTransport:
    """One channel, opened at the first call, used by any number of threads."""

    def __init__(self, connection: Connection, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._connection = connection
        self._sleep = sleep
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._calls: dict[str, Any] = {}
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
            run.answer(self._perform(step))
        except grpc.RpcError as failure:
            name = getattr(getattr(step, "request", None), "request_id", "")
            run.fail(error_of_call(cast("CallFailure", failure), self._connection, request_id=name))
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
            case Open():
                return self._call(step.method)(
                    step.request, timeout=step.timeout, metadata=channel.metadata(self._connection)
                )
            case Read():
                return next(cast("Any", step.call), None)
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

    def _open_channel(self) -> grpc.Channel:
        if self._is_closed:
            raise ConfigError("This client is closed.")
        if self._channel is None:
            self._channel = channel.open_channel(self._connection)
        return self._channel

    def close(self) -> None:
        """Close the channel; calls that run are cancelled."""
        with self._lock:
            self._is_closed = True
            self._calls.clear()
            if self._channel is not None:
                self._channel.close()
                self._channel = None
