"""Chooses the next token from logits. It never sorts the vocabulary.

Every row is worked on alone and every sequence has its own generator, so that a seed gives the same text whatever
else is running.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tidemill_serving.decoder.devices.device import FloatArray
from tidemill_serving.engine import Sampling

MAX_TEMPERATURE = 2.0
REPETITION_PENALTIES = (0.1, 10.0)  # the lowest and the highest
MAX_PENALTY = 2.0  # of presence and of frequency, either way
MAX_BIAS = 100.0  # either way
MAX_BIASED_TOKENS = 300
GREEDY_BELOW = 1e-3  # a lower temperature leaves the best token alone anyway
NUMS_HEAVIEST = (64, 1024)  # candidates that a nucleus is sought in before the whole vocabulary is
SAMPLE_STRIDE = 64  # tokens are looked at for how many are worth a weight
FEW = 8  # at most one in so many is few
BLOCK_LENGTH = 256  # tokens whose weights are summed up at once

IndexArray = NDArray[np.intp]


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


def make_generator(seed: int | None) -> np.random.Generator:
    """A sequence's own source of chance; any integer is a seed."""
    return np.random.default_rng(None if seed is None else seed % 2**64)


def draw_token(logits: FloatArray, sampling: Sampling, generator: np.random.Generator) -> int:
    """The next token by temperature, then top-k, top-p and min-p. `logits` [V] must be finite at their maximum."""
    highest = logits.max()
    candidates: IndexArray | None = None
    if 0 < sampling.top_k < len(logits):
        candidates = _most(logits, sampling.top_k)
        logits = logits[candidates]
    floor = _floor_of_weight(logits, float(highest), sampling)
    if floor is not None:
        kept = _indices_from(logits, np.float32(floor))
        candidates, logits = kept if candidates is None else candidates[kept], logits[kept]
    weights = logits - highest
    weights /= np.float32(sampling.temperature)
    np.exp(weights, out=weights)
    index = _draw_nucleus(weights, sampling, generator) if sampling.top_p < 1.0 else _draw(weights, generator)
    return index if candidates is None else int(candidates[index])


def _floor_of_weight(logits: FloatArray, highest: float, sampling: Sampling) -> float | None:
    """The logit below which no token needs a weight, if it is worth looking for those above it.

    That is min-p's where it counts all tokens, else one below which all tokens together weigh less than float32 tells
    from the highest one's weight. At low temperatures few are above that, and an exponential each is what costs most.
    """
    if sampling.min_p > 0.0 and sampling.top_p == 1.0:
        return min(highest, highest + sampling.temperature * math.log(sampling.min_p))
    floor = highest - sampling.temperature * math.log(len(logits) * 2.0**24)
    sample = logits[::SAMPLE_STRIDE]
    return floor if np.count_nonzero(sample >= floor) * FEW <= len(sample) else None


def _draw(weights: FloatArray, generator: np.random.Generator) -> int:
    """An index with a probability in proportion to its weight: first its block, then its place there."""
    sums = np.add.reduceat(weights, np.arange(0, len(weights), BLOCK_LENGTH), dtype=np.float64)
    reach = np.cumsum(sums)
    target = generator.random() * float(reach[-1])
    block = _index_at(reach, target)
    start = block * BLOCK_LENGTH
    inside = np.cumsum(weights[start : start + BLOCK_LENGTH], dtype=np.float64)
    return start + _index_at(inside, target - float(reach[block] - sums[block]))


def _index_at(reach: NDArray[np.float64], target: float) -> int:
    """Where running sums first exceed the target. Never a place without weight, whatever the rounding."""
    return int(np.searchsorted(reach, min(max(target, 0.0), np.nextafter(reach[-1], 0.0)), side="right"))


def _draw_nucleus(weights: FloatArray, sampling: Sampling, generator: np.random.Generator) -> int:
    """An index from the smallest set of the heaviest that holds at least `top_p` of all weight.

    Those lighter than `min_p` of the heaviest are out. It is sought among a few of the heaviest, then among more.
    """
    limit = sampling.top_p * float(weights.sum(dtype=np.float64))
    if sampling.min_p > 0.0:  # of two sets of the heaviest the smaller one counts
        kept = _indices_from(weights, np.float32(min(sampling.min_p * float(weights.max()), weights.max())))
        heavy = weights[kept]
        is_smaller = float(heavy.sum(dtype=np.float64)) <= limit
        return int(kept[_draw(heavy, generator) if is_smaller else _draw_limited(heavy, limit, generator)])
    return _draw_limited(weights, limit, generator)


def _draw_limited(weights: FloatArray, limit: float, generator: np.random.Generator) -> int:
    """An index from the smallest set of the heaviest that holds at least `limit` of weight."""
    for num_heaviest in NUMS_HEAVIEST:
        head = heaviest(weights, num_heaviest)
        reach = np.cumsum(weights[head], dtype=np.float64)
        if reach[-1] >= limit or len(head) == len(weights):
            nucleus = reach[: int(np.searchsorted(reach, limit)) + 1]
            return int(head[_index_at(nucleus, generator.random() * float(nucleus[-1]))])
    return _draw_wide_nucleus(weights, limit, generator)


def _draw_wide_nucleus(weights: FloatArray, limit: float, generator: np.random.Generator) -> int:
    """The same for a flat distribution: draw from all, and again while the one drawn is outside of the nucleus.

    It is inside when those heavier than itself do not fill the nucleus; that takes a sum, not a sort. One draw is
    inside with a probability of at least top_p; after many failures the heaviest is as good as any.
    """
    for _ in range(math.ceil(40 * float(weights.sum(dtype=np.float64)) / limit)):
        index = _draw(weights, generator)
        if float((weights * (weights > weights[index])).sum(dtype=np.float64)) < limit:
            return index
    return int(weights.argmax())


def _most(values: FloatArray, count: int) -> IndexArray:
    """The indices of exactly the `count` highest."""
    if count <= NUMS_HEAVIEST[-1]:
        return heaviest(values, count)[:count]
    return np.argpartition(values, -count)[-count:]


def heaviest(values: FloatArray, count: int) -> IndexArray:
    """The indices of at least the `count` highest, the highest first, and of equal ones the lower index first."""
    if len(values) <= count:
        head: IndexArray = np.arange(len(values))
    else:
        head = _indices_from(values, _floor(values, count))
    return head[np.argsort(-values[head], kind="stable")]


def _indices_from(values: FloatArray, floor: np.float32) -> IndexArray:
    """The indices of the values that reach `floor`, in order.

    Where they are few, they are sought in eights that hold one: three times faster than one by one.
    """
    reaches = values >= floor
    num_whole = len(values) // 8 * 8
    eights = np.flatnonzero(reaches[:num_whole].view(np.uint64))
    if len(eights) * 64 > len(values):
        return np.flatnonzero(reaches)
    near = (eights[:, None] * 8 + np.arange(8)).ravel()
    return np.concatenate([near[reaches[near]], num_whole + np.flatnonzero(reaches[num_whole:])])


def _floor(values: FloatArray, count: int) -> np.float32:
    """A value that at least `count` reach, and not many more: the one that so many blocks' maxima reach.

    Ten times faster than to partition the values themselves.
    """
    maxima = np.maximum.reduceat(values, np.arange(0, len(values), max(1, len(values) // (4 * count))))
    floor: np.float32 = np.partition(maxima, -count)[-count]
    return floor
