"""Chooses the next tokens of rows of logits: by our library, or by numpy where that was not built.

What a row gives is the same to the bit whatever the other rows are, so that a seed gives the same text whatever else
is running.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tidemill_serving.decoder.devices.device import FloatArray
from tidemill_serving.decoder.numpy_chooser import LOWEST_LOGPROB, NumpyChooser, TokenPick
from tidemill_serving.decoder.wish import Wish
from tidemill_serving.engine import TokenLogprobs
from tidemill_serving.native.choosing import ChoosingLibrary, RowChoices, find_choosing


class Chooser(Protocol):
    """Chooses from rows of one length."""

    def choose(self, logits: FloatArray, wishes: Sequence[Wish]) -> list[TokenPick]:
        """A token of each row of `logits` [n, V], by its wish; -1 where the row's highest logit is no finite number.

        The logits are as they were afterwards.
        """


def open_chooser(vocab_size: int) -> Chooser:
    """For rows of so many logits."""
    library = find_choosing()
    return NumpyChooser() if library is None else NativeChooser(library, vocab_size)


class NativeChooser:
    """See `Chooser`."""

    def __init__(self, library: ChoosingLibrary, vocab_size: int) -> None:
        self._choices = RowChoices(library, vocab_size)

    def choose(self, logits: FloatArray, wishes: Sequence[Wish]) -> list[TokenPick]:
        """One call for all rows."""
        choices, n = self._choices, len(wishes)
        rows = np.require(logits, np.float32, ("C", "W"))
        choices.choose(rows, [wish.record for wish in wishes], [wish.chance() for wish in wishes])
        tokens: list[int] = choices.tokens[:n].tolist()
        if all(wish.num_logprobs is None for wish in wishes):
            return [(token, None) for token in tokens]
        return [(token, self._told(row, wish)) for row, (token, wish) in enumerate(zip(tokens, wishes, strict=True))]

    def _told(self, row: int, wish: Wish) -> TokenLogprobs | None:
        choices = self._choices
        if wish.num_logprobs is None or choices.tokens[row] < 0:
            return None
        num_top = min(wish.num_logprobs, choices.vocab_size)
        tokens = choices.told_tokens[row, :num_top].tolist()
        logprobs = np.maximum(choices.told_logprobs[row, :num_top], LOWEST_LOGPROB).tolist()
        chosen = max(LOWEST_LOGPROB, float(choices.logprobs[row]))
        return TokenLogprobs(chosen, tuple(zip(tokens, logprobs, strict=True)))
