"""Draws a token for each of many rows. What a row gives depends on that row, its options and its chance alone."""

from collections.abc import Sequence
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

    row: int
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


def draw_from_nuclei(shares: FloatArray, sums: FloatArray, nuclei: Sequence[WideNucleus]) -> list[int]:
    """A token of each wide nucleus: draw from all, and again while the one drawn is outside.

    It is inside when those heavier than itself do not fill the nucleus; that takes a sum, not a sort. One draw is
    inside with a probability of at least top-p; after many failures the best is as good as any. `shares` are
    [n, width], `sums` [n, blocks].
    """
    tokens = [nucleus.best for nucleus in nuclei]
    pending, num_failed = list(range(len(nuclei))), 0
    while pending := [place for place in pending if num_failed < ceil(40 / nuclei[place].top_p)]:
        rows = np.array([nuclei[place].row for place in pending])
        chances = np.array([nuclei[place].generator.random() for place in pending])
        drawn = draw_from_all(shares, sums, rows, chances)
        left = []
        for place, row, token, share in zip(pending, rows, drawn.tolist(), shares[rows, drawn], strict=True):
            if share >= nuclei[place].surely or _is_inside(shares[row], sums[row], nuclei[place], share):
                tokens[place] = token
            else:
                left.append(place)
        pending, num_failed = left, num_failed + 1
    return tokens


def _is_inside(shares: FloatArray, sums: FloatArray, nucleus: WideNucleus, share: np.float32) -> bool:
    """Whether a token of that share may be drawn."""
    if share < nucleus.min_p * shares[nucleus.best]:
        return False
    heavier = shares[shares > share].sum(dtype=np.float64)
    return bool(heavier < nucleus.top_p * sums.sum(dtype=np.float64))


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
