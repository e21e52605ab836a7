"""How tokens are chosen, by the formulas of transformers' logits processors, in float64 over a sorted vocabulary."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidemill_serving.decoder.numpy_chooser import Picks
from tidemill_serving.engine import Sampling, TokenLogprobs

Probabilities = NDArray[np.float64]


def changed_logits(
    logits: NDArray[np.float32], sampling: Sampling, prompt: Sequence[int], answer: Sequence[int]
) -> Probabilities:
    """Bias, repetition penalty (as SequenceBias and RepetitionPenaltyLogitsProcessor), then OpenAI's two penalties."""
    changed = logits.astype(np.float64)
    for token, bias in sampling.logit_bias:
        changed[token] += bias
    for token in {*prompt, *answer}:
        value = changed[token]
        penalty = sampling.repetition_penalty
        changed[token] = value * penalty if value < 0 else value / penalty
    for token in set(answer):
        changed[token] -= sampling.presence_penalty + sampling.frequency_penalty * list(answer).count(token)
    return changed


def probabilities(logits: NDArray[np.floating], sampling: Sampling) -> Probabilities:
    """Temperature, top-k, top-p, min-p in this order, each over what the one before it left."""
    scaled = logits.astype(np.float64) / sampling.temperature
    found = np.exp(scaled - scaled.max())
    order = np.argsort(-found, kind="stable")
    if sampling.top_k:
        found[order[sampling.top_k :]] = 0.0
    found /= found.sum()
    if sampling.top_p < 1:
        reach = np.cumsum(found[order])
        size = int(np.searchsorted(reach, sampling.top_p - 1e-12)) + 1
        found[order[size:]] = 0.0
    found[found < sampling.min_p * found.max() * (1 - 1e-9)] = 0.0
    return found / found.sum()


def log_softmax(logits: NDArray[np.float32]) -> Probabilities:
    wide = logits.astype(np.float64)
    return wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())


def pairs(picks: Picks) -> list[tuple[int, TokenLogprobs | None]]:
    """Row by row, with what is told of it."""
    return [(token, picks.told.get(row)) for row, token in enumerate(picks.tokens)]
