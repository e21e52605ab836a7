"""Finds the highest logits of many rows at once: they are in the blocks whose own highest is among the highest."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidemill_serving.decoder.devices.device import FloatArray, IntArray
from tidemill_serving.decoder.whole_rows import BLOCK_LENGTH

_NOBODY = 0x7F800000_FFFFFFFF  # the key behind all others: minus infinity, of no token


@dataclass(frozen=True, slots=True)
class Highest:
    """Of each row all that reach its floor, or the first so many of them, the highest first, and of equal ones the
    lower token first. Rows with fewer are filled up with minus infinity.
    """

    logits: FloatArray  # [n, k]
    tokens: IntArray  # [n, k]
    floors: FloatArray  # [n]: all above it are here


def floors_of(maxima: FloatArray, counts: IntArray) -> FloatArray:
    """What at least `counts` [n] logits of each row reach, by its blocks' highest [n, blocks], and few more."""
    num_blocks = maxima.shape[1]
    floors = np.full(len(maxima), -np.inf, np.float32)
    within = sorted({count for count in counts.tolist() if count < num_blocks})
    if within:
        ordered = np.partition(maxima, [num_blocks - count for count in within], axis=1)
        rows = np.flatnonzero(counts < num_blocks)
        floors[rows] = ordered[rows, num_blocks - counts[rows]]
    return floors


def find_highest(rows: FloatArray, maxima: FloatArray, floors: FloatArray, most: int) -> Highest:
    """Those of `rows` [n, width] that reach their floor, at most `most` of each."""
    num_blocks = maxima.shape[1]
    blocks = np.flatnonzero(maxima >= floors[:, None])  # counted through all rows: faster than by row and place
    found = rows.reshape(-1, BLOCK_LENGTH).take(blocks, axis=0)
    places = np.flatnonzero(found >= floors.take(blocks // num_blocks)[:, None])
    near = blocks.take(places // BLOCK_LENGTH)
    row = near // num_blocks
    tokens = (near - row * num_blocks) * BLOCK_LENGTH + places % BLOCK_LENGTH
    keys = _keys(found.reshape(-1).take(places), tokens)
    ordered, is_cut = _in_order(keys, row, len(rows), most)
    logits, tokens = _decoded(ordered)
    return Highest(logits, tokens, np.where(is_cut, logits[:, -1], floors))


def _in_order(keys: IntArray, row: IntArray, num_rows: int, most: int) -> tuple[IntArray, NDArray[np.bool_]]:
    """The lowest `most` keys of each row at most, in order, and which rows had more; `row`, whose each is, ascends."""
    counts = np.bincount(row, minlength=num_rows)
    starts = np.cumsum(counts) - counts
    width = int(counts.max())
    if width <= most:
        ordered = np.full((num_rows, width), _NOBODY, np.int64)
        ordered[row, np.arange(len(row)) - starts[row]] = keys
    else:  # a row with very many equal ones
        ordered = np.full((num_rows, most), _NOBODY, np.int64)
        for number, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
            own = keys[start : start + count]
            ordered[number, : min(count, most)] = own if count <= most else np.partition(own, most)[:most]
    ordered.sort(axis=1)
    return ordered, counts > most


def _keys(logits: FloatArray, tokens: IntArray) -> IntArray:
    """Numbers that are in order where the logits fall, and the tokens rise among equal ones."""
    bits = (logits + np.float32(0.0)).view(np.int32)  # both zeros are one
    rising = bits ^ (bits >> 31 & 0x7FFFFFFF)
    keys: IntArray = (~rising).astype(np.int64) << 32 | tokens
    return keys


def _decoded(keys: IntArray) -> tuple[FloatArray, IntArray]:
    """The logits and the tokens that `_keys` were made of."""
    rising: NDArray[np.int32] = ~(keys >> 32).astype(np.int32)
    return (rising ^ (rising >> 31 & 0x7FFFFFFF)).view(np.float32), keys & 0xFFFFFFFF
