"""What a run reads and writes beside the cache, at addresses that stay the same from run to run."""

import numpy as np
from numpy.typing import DTypeLike

from tidemill_serving.decoder.devices.buckets import Batch
from tidemill_serving.decoder.devices.device import IntArray
from tidemill_serving.decoder.devices.memory import Block, Memory

_INT_BYTES = 8
_USUAL_PIECE = 512  # tokens of a prompt in one run


class RunBuffers:
    """For rows of one token each: `token_ids` [B, 1], `positions` [B, 1], `mask` [B, context], `logits` [B, 1, V].

    For pieces of a prompt: `token_ids` again, and `ones` and `counting`, of the context's length, which are never
    written: a mask and positions are where in them a piece begins.

    A graph with GroupQueryAttention takes nothing from the mask but its width and each row's sum. So a row's sum may
    stand in its first column, and a step writes one number a row; whether a graph allows it is seen by a trial, which
    clears `mask_is_sum`: then each step writes all of the mask.
    """

    def __init__(
        self, memory: Memory, *, num_slots: int, context_length: int, vocab_size: int, logits_dtype: DTypeLike
    ) -> None:
        self._memory, self._context_length = memory, context_length
        self._logits_bytes = vocab_size * np.dtype(logits_dtype).itemsize  # of a row
        self._addresses: list[int] = []
        self.mask_is_sum = True
        self.token_ids = self._allocate(max(num_slots, context_length) * _INT_BYTES)
        self.positions = self._allocate(num_slots * _INT_BYTES)
        self.mask = self._allocate(num_slots * context_length * _INT_BYTES)
        self.logits = self._allocate(num_slots * self._logits_bytes)
        self.ones = self._allocate(context_length * _INT_BYTES)
        self.counting = self._allocate(context_length * _INT_BYTES)
        self._write(self.ones, np.ones((1, context_length), np.int64))
        self._write(self.counting, np.arange(context_length, dtype=np.int64)[None])
        self._wide_logits, self._num_wide_rows = 0, 0

    @staticmethod
    def num_bytes(*, num_slots: int, context_length: int, vocab_size: int) -> int:
        """About what the constructor takes, logits of a whole piece of a prompt with it."""
        return (num_slots + 4) * context_length * _INT_BYTES + (num_slots + _USUAL_PIECE) * vocab_size * 4

    def set_rows(self, batch: Batch) -> None:
        """Write what a run of one token for each row reads."""
        counts = batch.num_past + 1
        self.set_tokens(batch.token_ids)
        self._write(self.positions, batch.num_past[None])
        if self.mask_is_sum:
            row_bytes = self._context_length * _INT_BYTES
            block = Block(self.mask, _INT_BYTES, len(batch), row_bytes)
            self._memory.write(block, counts[:, None].view(np.uint8))
        else:
            self._write(self.mask, (np.arange(self._context_length) < counts[:, None]).astype(np.int64).reshape(1, -1))

    def clear_mask_of_first(self) -> None:
        """The first row's mask is all zeros again, as sums are written over."""
        self._write(self.mask, np.zeros((1, self._context_length), np.int64))

    def set_tokens(self, token_ids: IntArray) -> None:
        """Write the tokens of a run."""
        self._write(self.token_ids, np.ascontiguousarray(token_ids)[None])

    def wide_logits(self, num_rows: int) -> int:
        """Room for the logits of a piece of a prompt, where the graph makes them for each of its tokens."""
        if num_rows > self._num_wide_rows:
            if self._wide_logits:
                self._addresses.remove(self._wide_logits)
                self._memory.free(self._wide_logits)
            self._wide_logits, self._num_wide_rows = self._allocate(num_rows * self._logits_bytes), num_rows
        return self._wide_logits

    def logits_of(self, address: int, row: int) -> Block:
        """A row of logits that begin at an address."""
        return Block(address + row * self._logits_bytes, self._logits_bytes)

    def free(self) -> None:
        """Give all of it back."""
        while self._addresses:
            self._memory.free(self._addresses.pop())

    def _allocate(self, num_bytes: int) -> int:
        self._addresses.append(self._memory.allocate(num_bytes))
        return self._addresses[-1]

    def _write(self, address: int, numbers: IntArray) -> None:
        self._memory.write(Block(address, numbers.shape[1] * _INT_BYTES), numbers.view(np.uint8))
