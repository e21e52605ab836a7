"""One generation read to its end, over as many calls as its connections make of it."""

import time
from collections.abc import Callable
from itertools import count
from typing import Any

from tidemill import methods
from tidemill.errors import (
    CallCancelledError,
    DeadlineExceededError,
    GenerationLostError,
    InternalError,
    ProtocolError,
    ReaderTooSlowError,
    TidemillError,
    UnreachableError,
)
from tidemill.methods import Method
from tidemill.plans.answers import Answer
from tidemill.plans.models import OnProgress
from tidemill.results import finish_reason_of, logprobs_of, progress_of, usage_of
from tidemill.statuses import error_of_message
from tidemill.steps import RETRIED, Deadline, Emit, Open, OpenCall, Plan, Read, Sleep, Unary, request_id, spread
from tidemill.v1 import inference_pb2

MAY_RUN_ON = (CallCancelledError, DeadlineExceededError, InternalError, ReaderTooSlowError, UnreachableError)
"""Errors after which the generation may still run on the server."""
LONGEST_ABSENCE = 20.0
"""Seconds for which a server that was there is looked for."""
NUM_TRIES_UNREACHED = 3
"""Tries after the first where there was no connection at all."""
LONGEST_PAUSE = 2.0
"""Seconds between two tries."""
FAREWELL_TIMEOUT = 2.0
"""Seconds for the server to hear that nobody comes back; closing a client waits for as long."""


class Absence:
    """How long the connection has been lost, and how often it was tried in vain."""

    def __init__(self) -> None:
        self.was_lost = False
        """Whether it has ever been lost."""
        self._was_reached = False
        self._since: float | None = None
        self._pauses = count()

    def hear(self) -> None:
        """The server says something."""
        self._was_reached = True
        self._since = None

    def next_pause(self, error: TidemillError) -> float | None:
        """Seconds until the next try after this loss; None when there were enough."""
        self.was_lost = True
        self._was_reached |= isinstance(error, UnreachableError) and error.was_connected
        if self._since is None:
            self._since, self._pauses = time.monotonic(), count()
        num_tries = next(self._pauses)
        if self._was_reached:
            is_enough = time.monotonic() - self._since > LONGEST_ABSENCE
        else:
            is_enough = num_tries >= NUM_TRIES_UNREACHED
        return None if is_enough else spread(min(LONGEST_PAUSE, 0.1 * 2**num_tries))


def follow(
    request: inference_pb2.GenerateRequest, answer: Answer, on_progress: OnProgress | None, deadline: Deadline
) -> Plan[None]:
    """Read the answer to its end as it is made; a call that was cut is followed by another one that goes on there.

    A generation that was lost before it showed any text begins anew, under another request id.
    """

    def read(call: OpenCall, absence: Absence) -> Plan[None]:
        yield from _read_stream(call, answer, on_progress, absence)

    yield from _follow(methods.GENERATE, request, answer, deadline, read)


def fetch(request: inference_pb2.GenerateRequest, answer: Answer, deadline: Deadline) -> Plan[None]:
    """Have the whole answer at its end; a call that was cut is followed by another one."""

    def read(call: OpenCall, absence: Absence) -> Plan[None]:
        whole = yield Read(call)
        absence.hear()
        answer.add(whole.text, whole.end.usage.completion_tokens)
        answer.logprobs += logprobs_of(whole.logprobs)
        _finish(answer, whole.end)

    yield from _follow(methods.COMPLETE, request, answer, deadline, read)


def _follow(
    method: Method[Any, Any],
    request: inference_pb2.GenerateRequest,
    answer: Answer,
    deadline: Deadline,
    read: Callable[[OpenCall, Absence], Plan[None]],
) -> Plan[None]:
    absence = Absence()
    while True:
        farewell = Unary(
            methods.CANCEL_GENERATION,
            inference_pb2.CancelGenerationRequest(request_id=request.request_id),
            FAREWELL_TIMEOUT,
        )
        call = yield Open(method, request, deadline.remaining(), farewell)
        answer.line.attach(call)
        try:
            yield from read(call, absence)
        except GenerationLostError:
            if not absence.was_lost or answer.sequence_number:
                raise
            request.request_id = request_id()
        except TidemillError as error:
            pause = None if answer.has_ended or not _is_lost(error, absence) else absence.next_pause(error)
            if pause is None or not deadline.allows(pause):
                raise
            yield Sleep(pause)
            if answer.line.is_closed:
                raise CallCancelledError from None
            request.resume_after = answer.sequence_number
        else:
            return


def _is_lost(error: TidemillError, absence: Absence) -> bool:
    """Whether it is the connection that failed, or a server that is just coming back."""
    return isinstance(error, RETRIED if absence.was_lost else UnreachableError)


def _read_stream(call: OpenCall, answer: Answer, on_progress: OnProgress | None, absence: Absence) -> Plan[None]:
    while (message := (yield Read(call))) is not None:
        absence.hear()
        event = message.WhichOneof("event")
        num_events = (event != "keep_alive") + message.HasField("last_delta")
        check_order(message.sequence_number, answer.sequence_number + num_events)
        answer.sequence_number = message.sequence_number
        if event == "delta":
            yield from _take_text(message.delta, answer)
        elif event == "keep_alive" and on_progress is not None:
            on_progress(progress_of(message.keep_alive))
        elif event == "end":
            if message.HasField("last_delta"):
                yield from _take_text(message.last_delta, answer)
            _finish(answer, message.end)
            yield from _hang_up(call)
            return
    raise ProtocolError("The stream ended without saying how the answer ended.")


def _take_text(delta: inference_pb2.Delta, answer: Answer) -> Plan[None]:
    answer.add(delta.text, delta.num_tokens)
    answer.logprobs += logprobs_of(delta.logprobs)
    if delta.text:
        yield Emit(delta.text)


def _finish(answer: Answer, end: inference_pb2.GenerationEnd) -> None:
    answer.finish_reason = finish_reason_of(end.finish_reason)
    answer.usage = usage_of(end.usage) if end.HasField("usage") else None
    if end.finish_reason == inference_pb2.FINISH_REASON_ERROR:
        raise error_of_message(end.error)
    if end.finish_reason == inference_pb2.FINISH_REASON_CANCELLED and not answer.line.is_closed:
        raise CallCancelledError("The generation was cancelled: by another call, or since the connection was away.")


def _hang_up(call: OpenCall) -> Plan[None]:
    """Let the call end by itself after its last message; whatever happens now, the answer is whole."""
    try:
        yield Read(call)
    except TidemillError:
        return


def check_order(sequence_number: int, expected: int) -> None:
    """Raises ProtocolError when the stream's next message is not the one that is due."""
    if sequence_number != expected:
        raise ProtocolError(f"The stream sent message {sequence_number} where {expected} was due: something was lost.")
