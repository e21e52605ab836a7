"""Generations: one prompt or chat in, text out as it comes; or many in, whole texts out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tidemill.errors import CallCancelledError, TidemillError
from tidemill.plans.answers import Answer
from tidemill.plans.following import MAY_RUN_ON, fetch, follow
from tidemill.plans.models import OnProgress
from tidemill.results import Completion
from tidemill.steps import Deadline, Plan, build, request_id
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
    exact: bool = False
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None
    ignore_eos: bool = False
    top_logprobs: int | None = None
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
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=self.logit_bias,
        )
        return build(
            inference_pb2.GenerationOptions,
            "options.",
            max_tokens=self.max_tokens,
            sampling=sampling,
            stop=[self.stop] if isinstance(self.stop, str) else self.stop,
            exact=self.exact or None,
            ignore_eos=self.ignore_eos,
            top_logprobs=self.top_logprobs,
            wait=build(inference_pb2.Wait, "options.wait.", fail_fast=self.fail_fast, max_wait=self.max_wait),
        )


def generate(source: inference_pb2.Input, settings: Settings, answer: Answer) -> Plan[None]:
    """Emit the text as it comes, and leave the whole, its finish reason and its usage in `answer`.

    What breaks it is raised after the text that came before.
    """
    request = _request(source, settings)
    request.joins_end = True
    yield from _named(request, answer, follow(request, answer, settings.on_progress, Deadline(settings.timeout)))


def complete(source: inference_pb2.Input, settings: Settings) -> Plan[Completion]:
    """The whole answer to one input; read as it is made only where somebody wants to hear how it goes."""
    answer = Answer()
    if settings.on_progress is not None:
        yield from generate(source, settings, answer)
    else:
        request = _request(source, settings)
        yield from _named(request, answer, fetch(request, answer, Deadline(settings.timeout)))
    return answer.completion()


def _request(source: inference_pb2.Input, settings: Settings) -> inference_pb2.GenerateRequest:
    return build(
        inference_pb2.GenerateRequest,
        model=settings.model,
        session=settings.session,
        input=source,
        options=settings.message(),
        request_id=request_id(),
    )


def _named(request: inference_pb2.GenerateRequest, answer: Answer, plan: Plan[None]) -> Plan[None]:
    """Carry the plan out; what breaks it has the text until there and the request's name. What may run on is ended."""
    is_over = False
    try:
        yield from plan
        is_over = True
    except TidemillError as error:
        if isinstance(error, CallCancelledError) and answer.line.is_closed:
            answer.finish_reason = "cancelled"
            return
        is_over = answer.has_ended or not isinstance(error, MAY_RUN_ON)
        answer.finish_reason = "error"
        error.partial_text = answer.text
        error.request_id = error.request_id or request.request_id
        raise
    finally:
        if is_over:
            answer.line.release()
        else:
            answer.line.leave()


def complete_text(source: inference_pb2.Input, settings: Settings) -> Plan[str]:
    """The text of the answer to one input."""
    completion = yield from complete(source, settings)
    return completion.text
