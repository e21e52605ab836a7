"""The port below the decoder: what runs the model's graph and holds its KV cache."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
SavedCache = list[NDArray[np.generic]]
"""The start of a slot in host memory; only the device that made it knows its shape."""


class ModelRefusedError(Exception):
    """The graph cannot be served; the sentence says why and what would be."""


class DeviceError(Exception):
    """A run failed. What the cache held before it is still there, so the run may be tried again in parts."""


@dataclass(frozen=True, slots=True)
class Shortlist:
    """What most choices of a token need to know of rows of logits. Weights count from the row's highest logit, as 1."""

    logits: FloatArray  # [n, k]: the highest ones, the highest first
    tokens: IntArray  # [n, k]: whose they are
    totals: FloatArray  # [n]: the weight of all tokens; not finite where the logits are not
    block_weights: FloatArray  # [n, blocks]: of the tokens of each block, at the row's temperature


class RemoteLogits(Protocol):
    """Logits [n, V] that are not in host memory. Valid until the device's next call. All raise DeviceError."""

    @property
    def vocab_size(self) -> int:
        """V."""

    @property
    def block_length(self) -> int:
        """Tokens of a block; the last one may have fewer."""

    def __len__(self) -> int:
        """n."""

    def shortlist(self, temperatures: FloatArray, num_top: int) -> Shortlist:
        """Find the highest `num_top` of each row, and weigh the rest; `temperatures` [n] are above 0."""

    def piece(self, row: int, start: int, stop: int) -> FloatArray:
        """A copy of a row's logits of some tokens."""

    def row(self, row: int) -> FloatArray:
        """A copy of all of a row [V]."""


class Device(Protocol):
    """Runs one decoder model. Only the engine's thread calls it.

    The cache has numbered slots; each holds the keys and values of one sequence from its first token on. A run
    appends to them. How much of a slot counts is the caller's knowledge: `num_past` says it with every run.
    """

    def load(self, graph: Path, *, num_slots: int, context_length: int, on_progress: Callable[[float], None]) -> int:
        """Load the graph, make room for `num_slots` sequences of `context_length` tokens each.

        Calls `on_progress` with 0 to 1. Returns the vocabulary's size. Raises ModelRefusedError.
        """

    def decode(self, token_ids: IntArray, num_past: IntArray) -> FloatArray | RemoteLogits:
        """Append one token to each of the slots 0 to n-1.

        `token_ids` [n] are the tokens, `num_past` [n] the lengths of the slots before them. Returns logits [n, V],
        which stay valid until the next call; a device with memory of its own leaves them there. Raises DeviceError.
        """

    def extend(self, slot: int, token_ids: IntArray, num_past: int) -> FloatArray:
        """Append `token_ids` [s] to one slot that holds `num_past` tokens.

        Returns the last token's logits [V], which stay valid until the next call. Raises DeviceError.
        """

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` of slot `source` over slot `target`."""

    def copy_out(self, slot: int, num_tokens: int) -> SavedCache:
        """The first `num_tokens` of a slot, in host memory."""

    def copy_in(self, slot: int, saved: SavedCache) -> None:
        """Put back, into any slot, what `copy_out` gave."""

    def close(self) -> None:
        """Free the model and the cache."""
