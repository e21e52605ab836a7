"""The memory that holds every running sequence's keys and values."""

import math
import mmap

import numpy as np
from numpy.typing import DTypeLike, NDArray


class KVCache:
    """One array per layer for the keys and one for the values, each `[slots, kv heads, tokens, head size]`.

    The graph appends in place, so what it is handed must be a view, never a copy: only slices on axis 0 are. They
    start as zero pages that the operating system makes real when they are written, so unused length costs nothing.
    """

    def __init__(
        self, *, num_layers: int, num_slots: int, num_kv_heads: int, num_tokens: int, head_size: int, dtype: DTypeLike
    ) -> None:
        shape = (num_slots, num_kv_heads, num_tokens, head_size)
        self.keys: list[NDArray[np.generic]] = [_lazy_zeros(shape, dtype) for _ in range(num_layers)]
        self.values: list[NDArray[np.generic]] = [_lazy_zeros(shape, dtype) for _ in range(num_layers)]

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` of slot `source` over slot `target`."""
        for array in (*self.keys, *self.values):
            array[target, :, :num_tokens] = array[source, :, :num_tokens]

    def copy_out(self, slot: int, num_tokens: int) -> list[NDArray[np.generic]]:
        """The first `num_tokens` of a slot, in memory of their own."""
        return [array[slot, :, :num_tokens].copy() for array in (*self.keys, *self.values)]

    def copy_in(self, slot: int, saved: list[NDArray[np.generic]]) -> None:
        """Put what `copy_out` gave at the start of a slot."""
        for array, part in zip((*self.keys, *self.values), saved, strict=True):
            array[slot, :, : part.shape[1]] = part


def _lazy_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
    """Zeros of which only those pages become real that are written.

    numpy asks for huge pages for its own large arrays. One of these holds the starts of several heads, so the first
    token of each slot would make the whole cache real.
    """
    memory = mmap.mmap(-1, math.prod(shape) * np.dtype(dtype).itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # Linux
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    array: NDArray[np.generic] = np.frombuffer(memory, dtype).reshape(shape)
    return array
