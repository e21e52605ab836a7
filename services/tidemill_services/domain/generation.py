"""What a generation is asked for, and the limits of what may be asked."""

from dataclasses import dataclass
from enum import StrEnum

from tidemill_services.domain.errors import ContextExceededError, FieldInvalidError
from tidemill_services.domain.sampling import RANGES, check_logit_bias, check_number, check_top_logprobs

MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 256
MAX_WAIT_SECONDS = 3_600.0
DEFAULT_WAIT_SECONDS = 600.0
MAX_BATCH_INPUTS = 256


class FinishReason(StrEnum):
    """Why a generation ended."""

    STOP = "stop"  # the model ended its answer, or a stop string came
    LENGTH = "length"  # max_tokens or the context length
    CANCELLED = "cancelled"  # the caller went away
    SESSION_STOPPED = "session_stopped"  # its session was stopped and the time to finish was over
    ERROR = "error"  # it broke


@dataclass(frozen=True, slots=True)
class PromptInput:
    """Plain text to go on from."""

    prompt: str


@dataclass(frozen=True, slots=True)
class ChatInput:
    """A conversation, rendered with one of the model's templates; an empty `template` means the model's own."""

    messages: tuple[tuple[str, str], ...]  # (role, content)
    add_generation_prompt: bool = True
    template: str = ""


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """How long to wait for a replica that is not there yet."""

    fail_fast: bool = False  # refuse when there is no place at once
    max_wait_seconds: float = DEFAULT_WAIT_SECONDS
    fail_cold: bool = False  # refuse when the model is not running; wait for a place in one that is


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How a generation runs; None takes the model's default."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    wait: WaitPolicy = WaitPolicy()
    exact: bool = False  # the answer must not depend on what ran before
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token, what is added to its logit)
    ignore_eos: bool = False
    top_logprobs: int | None = None  # None: no log-probabilities at all


@dataclass(frozen=True, slots=True)
class Usage:
    """What one generation used; durations in seconds from the request's arrival."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    queue_seconds: float = 0.0
    time_to_first_token_seconds: float | None = None
    total_seconds: float = 0.0
    cost_microcredits: int = 0  # by its tokens; nothing where a session pays
    cached_prompt_tokens: int = 0  # of the prompt, those that had been computed before


def check_options(options: GenerationOptions) -> None:
    """Refuse values outside their limits; raises FieldInvalidError with the field's path in the request."""
    _check_sampling(options)
    if options.max_tokens is not None and options.max_tokens < 1:
        raise FieldInvalidError(
            f"max_tokens is {options.max_tokens}; it must be at least 1.", field="options.max_tokens"
        )
    if len(options.stop) > MAX_STOP_STRINGS:
        raise FieldInvalidError(
            f"{len(options.stop)} stop strings were sent; at most {MAX_STOP_STRINGS} may be.", field="options.stop"
        )
    for index, stop in enumerate(options.stop):
        if not 1 <= len(stop) <= MAX_STOP_CHARACTERS:
            raise FieldInvalidError(
                f"A stop string has {len(stop)} characters; it may have 1 to {MAX_STOP_CHARACTERS}.",
                field=f"options.stop[{index}]",
            )
    if not 0 <= options.wait.max_wait_seconds <= MAX_WAIT_SECONDS:
        raise FieldInvalidError(
            f"max_wait is {options.wait.max_wait_seconds:g} seconds; it may be 0 to {MAX_WAIT_SECONDS:g}.",
            field="options.wait.max_wait",
        )


def _check_sampling(options: GenerationOptions) -> None:
    for name in RANGES:
        check_number(name, getattr(options, name))
    check_logit_bias(options.logit_bias)
    check_top_logprobs(options.top_logprobs)


def seed_of(seed: int | None, index: int) -> int | None:
    """The seed of one of several generations that were asked for with one: `seed + index`, within 64 bits."""
    return None if seed is None else (seed + index + (1 << 63)) % (1 << 64) - (1 << 63)


def tokens_to_make(num_prompt_tokens: int, max_tokens: int, context_length: int, field: str) -> int:
    """How many tokens an answer may have: what was asked for, cut to what fits the context beside the prompt.

    Raises ContextExceededError, naming both numbers, when not even one token fits.
    """
    room = context_length - num_prompt_tokens
    if room < 1:
        raise ContextExceededError(
            f"The prompt has {num_prompt_tokens} tokens and the model's context holds {context_length}, "
            "prompt and answer together: send a shorter prompt.",
            field=field,
        )
    return min(max_tokens, room)
