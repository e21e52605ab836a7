"""Chooses tokens with numpy, row by row: the same rules as our library's, some ten times slower.

Tokens with a weight have keys, whole numbers that are in order where logits fall, and tokens rise among equal ones.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill_serving.decoder.devices.device import FloatArray, IntArray
from tidemill_serving.decoder.wish import Wish
from tidemill_serving.engine import Sampling, TokenLogprobs

LOWEST_LOGPROB = -9999.0  # of a token that the model rules out: JSON has no minus infinity
FEW = 64  # are sorted
WeightArray = NDArray[np.float64]


class Picks(NamedTuple):
    """A token of each row, and of the rows that asked for it what is told of it."""

    tokens: list[int]  # -1 where a row's highest logit is no finite number
    told: dict[int, TokenLogprobs]  # by row


class NumpyChooser:
    """See `Chooser`."""

    def choose(self, logits: FloatArray, wishes: list[Wish]) -> Picks:
        """One row after the other."""
        tokens = [_choose(row, wish) for row, wish in zip(logits, wishes, strict=True)]
        told = {
            row: logprobs_of(logits[row], token, wish.num_logprobs)
            for row, (token, wish) in enumerate(zip(tokens, wishes, strict=True))
            if token >= 0 and wish.num_logprobs is not None
        }
        return Picks(tokens, told)


def _choose(logits: FloatArray, wish: Wish) -> int:
    chance = wish.chance()
    if not np.isfinite(logits.max()):
        return -1
    changed = logits
    if wish.changes is not None:
        changed = logits.copy()
        wish.changes.apply(changed)
        if not np.isfinite(changed.max()):
            return -1
    return int(changed.argmax()) if wish.is_greedy else _draw(changed, wish.sampling, wish.others, chance)


def logprobs_of(logits: FloatArray, token: int, num_top: int) -> TokenLogprobs:
    """The logarithm of the softmax of `logits` [V], at a token and at the likeliest ones."""
    highest = float(logits.max())
    total = highest + math.log(np.exp(logits - np.float32(highest)).sum(dtype=np.float64))
    keys = _keys(logits, np.arange(len(logits)))
    top = _tokens(np.sort(np.partition(keys, num_top)[:num_top] if num_top < len(keys) else keys)).tolist()
    return TokenLogprobs(
        chosen=max(LOWEST_LOGPROB, float(logits[token]) - total),
        top=tuple((each, max(LOWEST_LOGPROB, float(logits[each]) - total)) for each in top),
    )


def _draw(logits: FloatArray, sampling: Sampling, others: float, chance: float) -> int:
    """A token by temperature, then top-k, top-p and min-p, each of what the one before it left."""
    top = logits.max()
    cut = top - np.float32(sampling.temperature * math.log(len(logits) * 2.0**24))
    tokens = np.flatnonzero(logits >= cut)  # all others together weigh less than 2^-24 of the highest
    keys = _keys(logits[tokens], tokens)
    if 0 < sampling.top_k < len(keys):
        keys, others = np.partition(keys, sampling.top_k - 1)[: sampling.top_k], 0.0
    elif 0 < sampling.top_k < len(logits):
        others = 0.0
    if sampling.top_p < 1.0:
        weights = _weights(logits, keys, top, sampling)
        keys = _nucleus(keys, weights, sampling.top_p * (float(weights.sum()) + others))
    weights = _weights(logits, keys, top, sampling)
    if sampling.min_p > 0.0:
        is_kept = weights >= min(sampling.min_p, 1.0)
        keys, weights = keys[is_kept], weights[is_kept]
    tokens = _tokens(keys)
    order = np.argsort(tokens)
    reach = np.cumsum(weights[order])
    # Never a place without weight, whatever the rounding.
    place = np.searchsorted(reach, min(chance * reach[-1], np.nextafter(reach[-1], 0.0)), side="right")
    return int(tokens[order[place]])


def _nucleus(keys: IntArray, weights: WeightArray, limit: float) -> IntArray:
    """The first of the keys that weigh `limit` together: halves are taken in or left out, so nothing is sorted."""
    taken: list[IntArray] = []
    while len(keys) > FEW:
        half = len(keys) // 2
        order = np.argpartition(keys, half)
        first, rest = order[:half], order[half:]
        weight = float(weights[first].sum())
        if weight < limit:
            taken.append(keys[first])
            limit -= weight
            first = rest
        keys, weights = keys[first], weights[first]
    order = np.argsort(keys)
    size = int(np.searchsorted(np.cumsum(weights[order]), limit)) + 1
    return np.concatenate([*taken, keys[order[:size]]])


def _weights(logits: FloatArray, keys: IntArray, top: np.float32, sampling: Sampling) -> WeightArray:
    weights: WeightArray = np.exp((logits[_tokens(keys)] - top) / np.float32(sampling.temperature), dtype=np.float64)
    return weights


def _keys(logits: FloatArray, tokens: IntArray) -> IntArray:
    bits = (logits + np.float32(0.0)).view(np.int32)  # both zeros are one
    rising = bits ^ (bits >> 31 & 0x7FFFFFFF)
    keys: IntArray = (~rising).astype(np.int64) << 32 | tokens
    return keys


def _tokens(keys: IntArray) -> IntArray:
    return keys & 0xFFFFFFFF
