"""The rules of a caller's wishes: which may be had, which leave nothing to chance, and where chance comes from."""

import numpy as np

from tidemill_serving.engine import Sampling

MAX_TEMPERATURE = 2.0
REPETITION_PENALTIES = (0.1, 10.0)  # the lowest and the highest
MAX_PENALTY = 2.0  # of presence and of frequency, either way
MAX_BIAS = 100.0  # either way
MAX_BIASED_TOKENS = 300
NUM_AT_A_TIME = 32  # numbers of chance
GREEDY_BELOW = 1e-3  # a lower temperature leaves the best token alone anyway


def check_sampling(sampling: Sampling) -> str | None:
    """What is wrong with the values, as a sentence; None when they may be used."""
    if not 0.0 <= sampling.temperature <= MAX_TEMPERATURE:  # NaN fails this too
        return f"temperature is {sampling.temperature}; it may be 0 to {MAX_TEMPERATURE:g}"
    if not 0.0 < sampling.top_p <= 1.0:
        return f"top_p is {sampling.top_p}; it must be above 0 and at most 1"
    if sampling.top_k < 0:
        return f"top_k is {sampling.top_k}; it may be 0 (no limit) or more"
    if not 0.0 <= sampling.min_p <= 1.0:
        return f"min_p is {sampling.min_p}; it may be 0 (no limit) to 1"
    return _check_changes(sampling)


def _check_changes(sampling: Sampling) -> str | None:
    lowest, highest = REPETITION_PENALTIES
    if not lowest <= sampling.repetition_penalty <= highest:
        return f"repetition_penalty is {sampling.repetition_penalty}; it may be {lowest:g} to {highest:g}"
    for name in ("presence_penalty", "frequency_penalty"):
        if not abs(getattr(sampling, name)) <= MAX_PENALTY:
            return f"{name} is {getattr(sampling, name)}; it may be {-MAX_PENALTY:g} to {MAX_PENALTY:g}"
    if len(sampling.logit_bias) > MAX_BIASED_TOKENS:
        return f"logit_bias has {len(sampling.logit_bias)} tokens; it may have {MAX_BIASED_TOKENS}"
    if len({token for token, _ in sampling.logit_bias}) < len(sampling.logit_bias):
        return "logit_bias names a token twice"
    for token, bias in sampling.logit_bias:
        if not abs(bias) <= MAX_BIAS:
            return f"logit_bias of {token} is {bias}; it may be {-MAX_BIAS:g} to {MAX_BIAS:g}"
    return None


def is_greedy(sampling: Sampling) -> bool:
    """Whether the best token is taken without chance."""
    return sampling.temperature < GREEDY_BELOW or sampling.top_k == 1


class Chances:
    """A sequence's own source of chance; any integer is a seed. Numbers are made some at a time: one costs as much."""

    def __init__(self, seed: int | None) -> None:
        self._generator = np.random.default_rng(None if seed is None else seed % 2**64)
        self._coming: list[float] = []  # the next one last

    def next(self) -> float:
        """From 0 to below 1."""
        if not self._coming:
            self._coming = self._generator.random(NUM_AT_A_TIME).tolist()[::-1]
        return self._coming.pop()
