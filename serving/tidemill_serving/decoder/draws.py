"""Draws a token for each of many rows. What a row gives depends on that row, its options and its chance alone."""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from tidemill_serving.decoder.devices.device import FloatArray, IntArray
from tidemill_serving.decoder.highest import Highest
from tidemill_serving.decoder.whole_rows import SUM_LENGTH

WideArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What leaves some of the likeliest tokens to draw from; one of each for every row [n]."""

    top_k: IntArray  # 0: no limit
    top_p: WideArray
    min_p: FloatArray
    totals: WideArray  # the weight of all tokens, where top-p counts them; the highest one's is 1


@dataclass(frozen=True, slots=True)
class WideNucleus:
    """A nucleus that goes on below the highest that are known."""

    top_p: float
    min_p: float
    surely: float  # the share from which on a token is inside
    best: int  # the token of the highest
    generator: np.random.Generator


def draw_from_all(shares: FloatArray, sums: FloatArray, rows: IntArray, chances: WideArray) -> IntArray:
    """A token of each of `rows` by its share: first its block, by the blocks' `sums`, then its place there.

    `shares` are [n, width], `sums` [n, blocks].
    """
    own = sums.take(rows, axis=0)
    reach = np.cumsum(own, axis=1, dtype=np.float64)
    places = np.arange(len(rows))
    targets = chances * reach[:, -1]
    blocks = _places(reach, targets)
    near = shares.reshape(-1, SUM_LENGTH).take(rows * sums.shape[1] + blocks, axis=0)
    inside = np.cumsum(near, axis=1, dtype=np.float64)
    tokens: IntArray = blocks * SUM_LENGTH + _places(inside, targets - (reach[places, blocks] - own[places, blocks]))
    return tokens


def draw_from_nucleus(shares: FloatArray, sums: FloatArray, nucleus: WideNucleus) -> int:
    """A token of a row whose nucleus is wide: draw from all, and again while the one drawn is outside.

    It is inside when those heavier than itself do not fill the nucleus; that takes a sum, not a sort. One draw is
    inside with a probability of at least top-p; after many failures the best is as good as any. `shares` are
    [1, width], `sums` [1, blocks].
    """
    own, limit = shares[0], nucleus.top_p * float(sums.sum(dtype=np.float64))
    row = np.zeros(1, np.int64)
    for _ in range(ceil(40 / nucleus.top_p)):
        token = int(draw_from_all(shares, sums, row, np.array([nucleus.generator.random()]))[0])
        share = own[token]
        if share >= nucleus.surely or (
            share >= nucleus.min_p * own[nucleus.best] and own[own > share].sum(dtype=np.float64) < limit
        ):
            return token
    return nucleus.best


def draw_from_highest(highest: Highest, options: Narrowing, chances: WideArray) -> tuple[IntArray, NDArray[np.bool_]]:
    """A token of each row, and whether all that may be drawn are among its highest: else the token means nothing."""
    rows, known = np.arange(len(chances)), highest.logits.shape[1]
    tops = highest.logits[:, :1]
    weights = np.exp(highest.logits - tops)
    reach = np.cumsum(weights, axis=1, dtype=np.float64)
    is_limited = options.top_k > 0
    sizes = np.where(is_limited, np.minimum(options.top_k, known), known)
    limits = options.top_p * np.where(is_limited, reach[rows, sizes - 1], options.totals)
    is_inside = is_limited | (np.exp(highest.floors - tops[:, 0]) < options.min_p)
    has_nucleus = options.top_p < 1.0
    is_inside |= has_nucleus & (reach[:, -1] >= limits)
    nucleus = np.count_nonzero(reach < limits[:, None], axis=1) + 1
    sizes = np.where(has_nucleus, np.minimum(sizes, nucleus), sizes)
    sizes = np.minimum(sizes, np.count_nonzero(weights >= options.min_p[:, None], axis=1))
    ends = reach[rows, sizes - 1]
    places = np.count_nonzero(reach <= np.minimum(chances * ends, np.nextafter(ends, 0.0))[:, None], axis=1)
    return highest.tokens[rows, places], is_inside


def _places(reach: WideArray, targets: WideArray) -> IntArray:
    """Where each row's running sums first exceed its target. Never a place without weight, whatever the rounding."""
    within = np.minimum(np.maximum(targets, 0.0), np.nextafter(reach[:, -1], 0.0))
    places: IntArray = np.count_nonzero(reach <= within[:, None], axis=1)
    return places
