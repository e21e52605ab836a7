"""Sizes of batches: a recorded run can only be played again at the size that it was recorded with.

A batch is filled up to the next size with rows that nobody asked for. Rows are the first slots, so these rows are
slots in which somebody may keep something. Such a row appends its token behind what its slot holds, where the slot's
next own token will go: nobody counts what lies there.
"""

from dataclasses import dataclass

import numpy as np

from tidemill_serving.decoder.devices.device import IntArray

NO_RECORDING = -1  # as an id: neither record nor play
_FINE_UP_TO = 8  # beyond it a size is 1.33 to 1.5 times the one before


def sizes_up_to(num_slots: int) -> tuple[int, ...]:
    """1, 2, 4, 8, 12, 16, 24, 32, 48 ... and `num_slots` itself."""
    sizes, size = [], 1
    while size < num_slots:
        sizes.append(size)
        if size >= _FINE_UP_TO and size * 3 // 2 < num_slots:
            sizes.append(size * 3 // 2)
        size *= 2
    return (*sizes, num_slots)


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one run, those that fill it up behind the others."""

    token_ids: IntArray
    num_past: IntArray
    recording: int  # the id that the run is recorded under and played again by

    def __len__(self) -> int:
        return len(self.token_ids)


def fill_up(token_ids: IntArray, num_past: IntArray, num_held: IntArray, sizes: tuple[int, ...], room: int) -> Batch:
    """The batch that is run for these rows.

    `num_held` [slots] is what each slot holds, `room` what it can hold; of a full slot no row can be made, so that the
    batch is run as it is, unrecorded. Without `sizes` nothing is recorded.
    """
    n = len(token_ids)
    size = next((size for size in sizes if size >= n), 0)
    behind = num_held[n:size]
    if not size or (behind >= room).any():
        return Batch(token_ids, num_past, NO_RECORDING)
    return Batch(
        np.concatenate([token_ids, np.zeros(size - n, np.int64)]), np.concatenate([num_past, behind]), recording=size
    )
