"""The limits of how tokens may be chosen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tidemill_services.domain.errors import FieldInvalidError

MAX_TEMPERATURE = 2.0
REPETITION_PENALTIES = (0.1, 10.0)
MAX_PENALTY = 2.0  # of presence and of frequency, either way
MAX_BIAS = 100.0  # either way
MAX_BIASED_TOKENS = 300
MAX_TOP_LOGPROBS = 20
MAX_WHOLE_LOGPROBS = 32_768  # of what is sent whole


@dataclass(frozen=True, slots=True)
class Range:
    """What a number may be."""

    lowest: float
    highest: float
    sentence: str


RANGES: Mapping[str, Range] = {
    "temperature": Range(0, MAX_TEMPERATURE, f"it may be 0 to {MAX_TEMPERATURE:g}"),
    "top_p": Range(math.ulp(0.0), 1, "it must be above 0 and at most 1"),
    "top_k": Range(0, math.inf, "it must be 0 (no limit) or more"),
    "min_p": Range(0, 1, "it may be 0 (no limit) to 1"),
    "repetition_penalty": Range(*REPETITION_PENALTIES, "it may be {:g} to {:g}".format(*REPETITION_PENALTIES)),
    "presence_penalty": Range(-MAX_PENALTY, MAX_PENALTY, f"it may be {-MAX_PENALTY:g} to {MAX_PENALTY:g}"),
    "frequency_penalty": Range(-MAX_PENALTY, MAX_PENALTY, f"it may be {-MAX_PENALTY:g} to {MAX_PENALTY:g}"),
}


def check_number(name: str, value: float | None) -> None:
    """Raise FieldInvalidError unless the option of that name may be so; None is the model's default."""
    allowed = RANGES[name]
    if value is not None and not allowed.lowest <= value <= allowed.highest:  # NaN is nowhere
        raise FieldInvalidError(f"{name} is {value:g}; {allowed.sentence}.", field=f"options.sampling.{name}")


def check_logit_bias(logit_bias: tuple[tuple[int, float], ...]) -> None:
    """Raise FieldInvalidError for too many tokens, and for a bias that is too strong."""
    field = "options.sampling.logit_bias"
    if len(logit_bias) > MAX_BIASED_TOKENS:
        raise FieldInvalidError(
            f"logit_bias names {len(logit_bias)} tokens; at most {MAX_BIASED_TOKENS} may be.", field=field
        )
    for token, bias in logit_bias:
        if not abs(bias) <= MAX_BIAS:
            raise FieldInvalidError(
                f"logit_bias of token {token} is {bias:g}; it may be {-MAX_BIAS:g} to {MAX_BIAS:g}.",
                field=f"{field}[{token}]",
            )


def check_biased_tokens(logit_bias: tuple[tuple[int, float], ...], vocabulary_size: int) -> None:
    """Raise FieldInvalidError for a token that the model does not have."""
    for token, _ in logit_bias:
        if not 0 <= token < vocabulary_size:
            raise FieldInvalidError(
                f"logit_bias names token {token}; the model's are 0 to {vocabulary_size - 1}.",
                field=f"options.sampling.logit_bias[{token}]",
            )


def check_top_logprobs(top_logprobs: int | None) -> None:
    """Raise FieldInvalidError for more than are told."""
    if top_logprobs is not None and not 0 <= top_logprobs <= MAX_TOP_LOGPROBS:
        raise FieldInvalidError(
            f"top_logprobs is {top_logprobs}; it may be 0 to {MAX_TOP_LOGPROBS}.", field="options.top_logprobs"
        )


def check_whole_logprobs(top_logprobs: int | None, num_tokens: int, field: str) -> None:
    """Raise FieldInvalidError where what is sent whole would have too many; a stream may have any number."""
    num_logprobs = 0 if top_logprobs is None else num_tokens * (1 + top_logprobs)
    if num_logprobs > MAX_WHOLE_LOGPROBS:
        raise FieldInvalidError(
            f"Up to {num_tokens:,} tokens with {top_logprobs} likely ones each are {num_logprobs:,} log-probabilities; "
            f"what comes whole may have {MAX_WHOLE_LOGPROBS:,}: ask for fewer tokens, or for a stream.",
            field=field,
        )
