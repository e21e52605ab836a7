"""Generations: one prompt or chat in, text out as it comes; or many in, whole texts out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from tidemill import methods
from tidemill.errors import (
    CallCancelledError,
    ProtocolError,
    TidemillError,
)
from tidemill.plans.models import OnProgress
from tidemill.results import Completion, Usage, finish_reason_of, progress_of, usage_of
from tidemill.statuses import error_of_message
from tidemill.steps import Deadline, Emit, Line, Open, OpenCall, Plan, Read, build, request_id
from tidemill.v1 import inference_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How generations run; the meaning of each stands in `inference.proto`."""

    model: str = ""
    session: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | Sequence[str] = ()
    fail_fast: bool = False
    max_wait: timedelta | None = None
    on_progress: OnProgress | None = None
    timeout: float | None = None
    """Seconds for the whole generation."""

    def message(self, *, seed_offset: int = 0) -> inference_pb2.GenerationOptions:
        """As the wire wants it. Raises FieldInvalidError."""
        sampling = build(
            inference_pb2.Sampling,
            "options.sampling.",
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=self.seed + seed_offset if self.seed is not None and seed_offset else self.seed,
        )
        return build(
            inference_pb2.GenerationOptions,
            "options.",
            max_tokens=self.max_tokens,
            sampling=sampling,
            stop=[self.stop] if isinstance(self.stop, str) else self.stop,
            wait=build(inference_pb2.Wait, "options.wait.", fail_fast=self.fail_fast, max_wait=self.max_wait),
        )


class Pace:
    """How fast tokens come: those after the first piece, over the time between the first piece and the last."""

    SMALLEST_SAMPLE = 16
    """Tokens; fewer say more about the network than about the model."""
    SHORTEST_SAMPLE = 0.1
    """Seconds; within less, pieces that waited together look like a very fast model."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._last = 0.0
        self._num_tokens = 0

    def add(self, num_tokens: int, now: float) -> None:
        """Count a piece that came at `now`, in seconds of any clock that never goes back."""
        if self._first is None:
            self._first = now
        else:
            self._num_tokens += num_tokens
        self._last = now

    @property
    def tokens_per_second(self) -> float | None:
        """None when too few tokens came, or within too short a time, for a number that means something."""
        seconds = 0.0 if self._first is None else self._last - self._first
        if self._num_tokens < self.SMALLEST_SAMPLE or seconds < self.SHORTEST_SAMPLE:
            return None
        return self._num_tokens / seconds


class Answer:
    """A generation's answer while it grows."""

    def __init__(self) -> None:
        self.line = Line()
        self.finish_reason = ""
        self.usage: Usage | None = None
        self._texts: list[str] = []
        self._pace = Pace()

    @property
    def text(self) -> str:
        """All text until now."""
        return "".join(self._texts)

    @property
    def tokens_per_second(self) -> float | None:
        """How fast its tokens came; see Pace."""
        return self._pace.tokens_per_second

    def add(self, text: str, num_tokens: int) -> None:
        """Take the next piece, which has just come."""
        self._texts.append(text)
        self._pace.add(num_tokens, time.monotonic())

    def completion(self) -> Completion:
        """The whole answer."""
        return Completion(text=self.text, finish_reason=self.finish_reason, usage=self.usage)


def generate(source: inference_pb2.Input, settings: Settings, answer: Answer) -> Plan[None]:
    """Emit the text as it comes, and leave the whole, its finish reason and its usage in `answer`.

    What breaks it is raised after the text that came before.
    """
    request = build(
        inference_pb2.GenerateRequest,
        model=settings.model,
        session=settings.session,
        input=source,
        options=settings.message(),
        request_id=request_id(),
    )
    call = yield Open(methods.GENERATE, request, Deadline(settings.timeout).remaining())
    answer.line.attach(call)
    try:
        yield from _read_answer(call, answer, settings.on_progress)
    except TidemillError as error:
        if isinstance(error, CallCancelledError) and answer.line.is_closed:
            answer.finish_reason = "cancelled"
            return
        answer.finish_reason = "error"
        error.partial_text = answer.text
        error.request_id = error.request_id or request.request_id
        raise
    finally:
        call.cancel()


def _read_answer(call: OpenCall, answer: Answer, on_progress: OnProgress | None) -> Plan[None]:
    expected = 1
    while (message := (yield Read(call))) is not None:
        check_order(message.sequence_number, expected)
        expected += 1
        event = message.WhichOneof("event")
        if event == "delta":
            answer.add(message.delta.text, message.delta.num_tokens)
            if message.delta.text:
                yield Emit(message.delta.text)
        elif event == "keep_alive" and on_progress is not None:
            on_progress(progress_of(message.keep_alive))
        elif event == "end":
            _finish(answer, message.end)
            yield from _hang_up(call)
            return
    raise ProtocolError("The stream ended without saying how the answer ended.")


def _finish(answer: Answer, end: inference_pb2.GenerationEnd) -> None:
    answer.finish_reason = finish_reason_of(end.finish_reason)
    answer.usage = usage_of(end.usage) if end.HasField("usage") else None
    if end.finish_reason == inference_pb2.FINISH_REASON_ERROR:
        raise error_of_message(end.error)


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


def complete(source: inference_pb2.Input, settings: Settings) -> Plan[Completion]:
    """The whole answer to one input."""
    answer = Answer()
    yield from generate(source, settings, answer)
    return answer.completion()


def complete_text(source: inference_pb2.Input, settings: Settings) -> Plan[str]:
    """The text of the answer to one input."""
    completion = yield from complete(source, settings)
    return completion.text
