"""The sequences that decode, as columns: what each run and each choice of tokens takes, kept from step to step.

A run leaves nothing of us in the caches of the processor, and what is called for the first time after it costs many
times what it does in a loop. So a step does little beside looking at each sequence once, and makes no arrays.
"""

from struct import Struct

import numpy as np

from tidemill_serving.decoder.devices.device import IntArray
from tidemill_serving.decoder.sequence import Sequence
from tidemill_serving.decoder.wish import Wish

NO_VERSION = -1  # of a batch that is out of date


class DecodeBatch:
    """Row by row, of sequences that each have made a token which is not in the cache yet. Nobody changes its lists.

    Its arrays stay the same while it lives, and change with each step: devices need to bind them once.
    """

    def __init__(self, sequences: list[Sequence], version: int) -> None:
        """`version` tells one make-up of the batch from the others."""
        self.version = version
        self.sequences = sequences
        self.wishes: list[Wish] = [sequence.wish for sequence in sequences]
        self.token_ids: IntArray = np.array([sequence.last_token for sequence in sequences], np.int64)
        self.num_past: IntArray = np.array([sequence.num_cached for sequence in sequences], np.int64)
        self._column = Struct(f"={len(sequences)}q")
        self._memory = self.token_ids.data, self.num_past.data

    def move_on(self, token_ids: list[int]) -> None:
        """Each row's last token is in the cache, and these are the next."""
        tokens, past = self._memory
        self._column.pack_into(tokens, 0, *token_ids)
        self._column.pack_into(past, 0, *[sequence.num_cached for sequence in self.sequences])
