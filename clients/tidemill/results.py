"""What the methods return: frozen values, read from the wire in this file only.

Durations are `timedelta`, times are aware `datetime`, money is an integer of microcredits. States and reasons are the
contract's names in lower case without their prefix, such as "ready" or "stop"; a newer server may send others.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tidemill.errors import TidemillError
from tidemill.reading import duration_of, name_of, time_of
from tidemill.v1 import inference_pb2, model_pb2, usage_pb2


@dataclass(frozen=True, slots=True)
class ModelPrices:
    """What a model costs. 1 credit = 1,000,000 microcredits."""

    session_microcredits_per_second: int
    input_microcredits_per_million_tokens: int
    output_microcredits_per_million_tokens: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a model is on its way to ready, or a request in its queue."""

    state: str
    """The model's state: stopped, queued, starting, ready, draining or failed."""
    phase: str
    """launching, loading or warming; empty when it is not starting."""
    fraction: float
    """0 to 1 within the whole start."""
    time_to_ready: timedelta | None
    queue_position: int = 0
    """Requests before this one."""


@dataclass(frozen=True, slots=True)
class Model:
    """A registered thing that can be served."""

    name: str
    """models/{model}."""
    description: str
    engine: str
    """decoder, tensor or triton."""
    digest: str
    """SHA-256 of its manifest."""
    context_length: int
    """Tokens, prompt and answer together."""
    state: str
    """stopped, queued, starting, ready, draining or failed."""
    phase: str
    """launching, loading or warming; empty when it is not starting."""
    progress: float
    """0 to 1 within the whole start."""
    time_to_ready: timedelta | None
    failure: str
    """Why it could not be started; empty when it could."""
    retry_time: datetime | None
    ready_replicas: int
    open_sessions: int
    demand: int
    """Generations that run or wait."""
    prices: ModelPrices
    chat_templates: tuple[str, ...]
    """The default first; empty when it takes prompts only."""
    roles: tuple[str, ...]
    """What a message's role may be."""

    @property
    def is_running(self) -> bool:
        """Whether at least one replica answers."""
        return self.state == "ready"


@dataclass(frozen=True, slots=True)
class Usage:
    """What one generation used."""

    prompt_tokens: int
    completion_tokens: int
    queue_duration: timedelta
    """From the request's arrival until a replica took it, cold start included."""
    time_to_first_token: timedelta | None
    """From the request's arrival at the server to the first text; None when no text came."""
    total_duration: timedelta
    cost_microcredits: int = 0
    """What the answer costs by its tokens, where the account pays so; 0 where a session pays."""
    cached_prompt_tokens: int = 0
    """Tokens of the prompt that had been computed before, for another generation of the account."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One token that might stand in a place of an answer."""

    token_id: int
    text: bytes
    """Need not be whole characters; a control token's name."""
    logprob: float
    """The natural logarithm of its probability by the model alone, at least -9999."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token of an answer was."""

    chosen: Candidate
    top: tuple[Candidate, ...]
    """The likeliest in its place, the likeliest first."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    text: str
    finish_reason: str
    """stop, length, cancelled, session_stopped or error."""
    usage: Usage | None
    """None when the generation broke before the server could say."""
    error: TidemillError | None = None
    """What broke it, with finish reason error; the text is what had arrived."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of each token that was made, with `top_logprobs`."""


def model_of(message: model_pb2.Model) -> Model:
    """Read a model."""
    prices = message.prices
    return Model(
        name=message.name,
        description=message.description,
        engine=message.engine,
        digest=message.digest,
        context_length=message.context_length,
        state=_model_state(message.state),
        phase=_model_phase(message.phase),
        progress=message.progress,
        time_to_ready=duration_of(message, "time_to_ready"),
        failure=message.failure,
        retry_time=time_of(message, "retry_time"),
        ready_replicas=message.ready_replicas,
        open_sessions=message.open_sessions,
        demand=message.demand,
        prices=ModelPrices(
            session_microcredits_per_second=prices.session_microcredits_per_second,
            input_microcredits_per_million_tokens=prices.input_microcredits_per_million_tokens,
            output_microcredits_per_million_tokens=prices.output_microcredits_per_million_tokens,
        ),
        chat_templates=tuple(message.chat_templates),
        roles=tuple(message.roles),
    )


def progress_of(message: inference_pb2.KeepAlive) -> Progress:
    """Read what a waiting generation waits for."""
    return Progress(
        state=_model_state(message.model_state),
        phase=_model_phase(message.phase),
        fraction=message.progress,
        time_to_ready=duration_of(message, "time_to_ready"),
        queue_position=message.queue_position,
    )


def progress_of_model(model: Model) -> Progress:
    """How far a watched model is."""
    fraction = 1.0 if model.is_running else model.progress
    return Progress(state=model.state, phase=model.phase, fraction=fraction, time_to_ready=model.time_to_ready)


def usage_of(message: usage_pb2.Usage) -> Usage:
    """Read a generation's usage."""
    return Usage(
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
        queue_duration=message.queue_duration.ToTimedelta(),
        time_to_first_token=duration_of(message, "time_to_first_token"),
        total_duration=message.total_duration.ToTimedelta(),
        cost_microcredits=message.cost_microcredits,
        cached_prompt_tokens=message.cached_prompt_tokens,
    )


def logprobs_of(messages: Iterable[inference_pb2.TokenLogprob]) -> tuple[TokenLogprob, ...]:
    """Read the log-probabilities of tokens."""
    return tuple(TokenLogprob(_candidate(each.chosen), tuple(map(_candidate, each.top))) for each in messages)


def _candidate(message: inference_pb2.TokenLogprob.Candidate) -> Candidate:
    return Candidate(message.token_id, message.text, message.logprob)


def finish_reason_of(value: inference_pb2.FinishReason) -> str:
    """Read why a generation ended."""
    return name_of(inference_pb2.FinishReason, value, "FINISH_REASON_")


def _model_state(value: model_pb2.Model.State) -> str:
    return name_of(model_pb2.Model.State, value, "STATE_")


def _model_phase(value: model_pb2.Model.Phase) -> str:
    return name_of(model_pb2.Model.Phase, value, "PHASE_")
