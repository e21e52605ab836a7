"""Chooses the next tokens of rows of logits: by our library, or by numpy where that was not built.

What a row gives is the same to the bit whatever the other rows are, so that a seed gives the same text whatever else
is running.
"""

from typing import Protocol

from tidemill_serving.decoder.devices.device import FloatArray
from tidemill_serving.decoder.numpy_chooser import LOWEST_LOGPROB, NumpyChooser, Picks
from tidemill_serving.decoder.wish import Wish
from tidemill_serving.engine import TokenLogprobs
from tidemill_serving.native.choosing import ChoosingLibrary, RowChoices, find_choosing


class Chooser(Protocol):
    """Chooses from rows of one length."""

    def choose(self, logits: FloatArray, wishes: list[Wish]) -> Picks:
        """A token of each row of `logits` [n, V], by its wish.

        The logits are as they were afterwards. Nobody may change the list of wishes: it may come again.
        """


def open_chooser(vocab_size: int, num_threads: int = 1) -> Chooser:
    """For rows of so many logits; what threads there are beside the caller's serve where there is much to do."""
    library = find_choosing()
    return NumpyChooser() if library is None else NativeChooser(library, vocab_size, num_threads)


class NativeChooser:
    """See `Chooser`. What is the same from step to step, while the same wishes come, is kept."""

    def __init__(self, library: ChoosingLibrary, vocab_size: int, num_threads: int = 1) -> None:
        self._choices = RowChoices(library, vocab_size, num_threads)
        self._wishes: list[Wish] = []
        self._drawing: list[tuple[int, Wish]] = []  # with their rows
        self._telling: list[int] = []  # rows

    def choose(self, logits: FloatArray, wishes: list[Wish]) -> Picks:
        """One call for all rows."""
        choices = self._choices
        if wishes is not self._wishes:
            self._seat(wishes)
        for row, wish in self._drawing:
            choices.chances[row] = wish.chance()
        tokens = choices.choose(logits)
        told = {row: self._told(row, wishes[row]) for row in self._telling if tokens[row] >= 0} if self._telling else {}
        return Picks(tokens, told)

    def _seat(self, wishes: list[Wish]) -> None:
        self._wishes = wishes
        self._drawing = [(row, wish) for row, wish in enumerate(wishes) if not wish.is_greedy]
        self._telling = [row for row, wish in enumerate(wishes) if wish.num_logprobs is not None]
        self._choices.seat([wish.record for wish in wishes])

    def _told(self, row: int, wish: Wish) -> TokenLogprobs:
        choices = self._choices
        num_top = min(wish.num_logprobs or 0, choices.vocab_size)
        tokens = choices.told_tokens[row, :num_top].tolist()
        logprobs = [max(LOWEST_LOGPROB, logprob) for logprob in choices.told_logprobs[row, :num_top].tolist()]
        chosen = max(LOWEST_LOGPROB, float(choices.logprobs[row]))
        return TokenLogprobs(chosen, tuple(zip(tokens, logprobs, strict=True)))
