"""What callers do while the store is out of order: try again, with the same request_id, until they are answered."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import grpc

from tests.fault.callers import Answer
from tests.fault.trace import Moment, Trace
from tests.integration.api.conftest import Wire
from tidemill.v1 import session_pb2

Response = TypeVar("Response")

_PAUSE_SECONDS = 0.05
_CALL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call was refused, and how long that took."""

    code: str
    reason: str
    sentence: str
    has_retry_delay: bool
    seconds: float

    @classmethod
    def of(cls, error: grpc.RpcError, asked: float) -> "Refusal":
        """Read it from the status."""
        answer = Answer()
        answer.fail(error)
        sentence = error.details() or ""
        return cls(answer.code, answer.reason, sentence, answer.has_retry_delay, time.monotonic() - asked)

    def check(self) -> None:
        """Fail unless it says that the store is away, and when to try again."""
        assert (self.code, self.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE"), self
        assert self.has_retry_delay, self


def refused(call: Callable[[], object]) -> Refusal:
    """Call, and fail unless it is refused because the store is away."""
    asked = time.monotonic()
    try:
        call()
    except grpc.RpcError as error:
        refusal = Refusal.of(error, asked)
        refusal.check()
        return refusal
    raise AssertionError("it was answered, though the store is away")


@dataclass
class StartsAndStops:
    """One key's sessions of a ready model, started and stopped again and again; nothing that was refused may count."""

    wire: Wire
    model: str
    trace: Trace
    chance: random.Random
    ended: dict[str, session_pb2.Session] = field(default_factory=dict)  # by name, with the final bill
    refusals: list[Refusal] = field(default_factory=list)
    answered_at: float = 0.0  # the last answer
    failure: BaseException | None = None
    _before: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator["StartsAndStops"]:
        """Do it in a thread during the block; then finish the last session, and check all of them."""
        self._before = {session.name for session in self._listed()}
        thread = threading.Thread(target=self._run, name="starts-and-stops", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(120)
        if self.failure is not None:
            raise self.failure
        self._check()

    def wait_for_answer(self, seconds: float) -> float:
        """Wait until a call that is sent from now on is answered; return how long it took."""
        began = time.monotonic()
        while self.answered_at < began:
            assert self.failure is None, self.failure
            assert time.monotonic() - began < seconds, f"nothing is answered for {seconds:g} s: {self.refusals[-1:]}"
            time.sleep(0.02)
        return self.answered_at - began

    def wait_for_refusal(self, seconds: float = 120.0) -> None:
        """Wait until a call that is sent from now on is refused; what needs no room may still be answered first."""
        began, num_before = time.monotonic(), len(self.refusals)
        while len(self.refusals) == num_before:
            assert self.failure is None, self.failure
            assert time.monotonic() - began < seconds, f"nothing is refused for {seconds:g} s"
            time.sleep(0.02)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._start_and_stop()
        except BaseException as failure:  # noqa: BLE001 -- raised by whoever waits
            self.failure = failure

    def _start_and_stop(self) -> None:
        number = self.chance.randbytes(8).hex()
        request = session_pb2.StartSessionRequest(model=self.model, request_id=f"start-{number}")
        started, since = self._until_answered(self.wire.sessions.StartSession, request)
        assert not started.already_active
        assert started.session.HasField("start_time"), "its model was lost"
        self.trace.runs(started.session.name, since)
        self._stop.wait(self.chance.uniform(0, 0.5))
        stop = session_pb2.StopSessionRequest(name=started.session.name, all_holders=True, request_id=f"stop-{number}")
        stopped, since = self._until_answered(self.wire.sessions.StopSession, stop)
        self.trace.stands(stopped.session.name, since)
        self.ended[stopped.session.name] = stopped.session

    def _until_answered(self, method: Callable[..., Response], request: object) -> tuple[Response, Moment]:
        """Its answer, and when it may have happened: in the last try, or in those before whose outcome is unknown."""
        first = time.monotonic()
        while True:
            asked = time.monotonic()
            try:
                response = method(request, metadata=self.wire.metadata, timeout=_CALL_SECONDS)
            except grpc.RpcError as error:
                refusal = Refusal.of(error, asked)
                refusal.check()
                self.refusals.append(refusal)
                if "unknown" not in refusal.sentence:
                    first = time.monotonic()
                time.sleep(_PAUSE_SECONDS)
            else:
                self.answered_at = time.monotonic()
                return response, Moment(first, self.answered_at)

    def _check(self) -> None:
        """Each session is there once, ended, and billed as the trace says; there is no other one of this model."""
        found = list(self._listed())
        listed = {session.name: session for session in found if session.name not in self._before}
        assert len(found) == len(listed) + len(self._before)
        assert listed.keys() == self.ended.keys()
        for name, session in self.ended.items():
            self.trace.check(session)
            assert listed[name].bill == session.bill

    def _listed(self) -> Iterator[session_pb2.Session]:
        page_token = ""
        while True:
            request = session_pb2.ListSessionsRequest(page_size=1_000, page_token=page_token, model=self.model)
            page = self.wire.sessions.ListSessions(request, metadata=self.wire.metadata, timeout=_CALL_SECONDS)
            yield from page.sessions
            page_token = page.next_page_token
            if not page_token:
                return
