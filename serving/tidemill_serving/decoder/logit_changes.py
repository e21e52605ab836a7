"""What a caller's wishes do to logits before a token is chosen: a bias of some tokens, and penalties of those seen.

Only the logits of the tokens concerned are touched, so that the cost grows with them and not with the vocabulary.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np

from tidemill_serving.decoder.devices.device import FloatArray, IntArray
from tidemill_serving.engine import Sampling


class LogitChanges:
    """The changes for one sequence: first the bias, then the repetition penalty, then frequency and presence.

    That is the order of transformers and vLLM. The repetition penalty counts the prompt's tokens and the answer's, the
    other two count the answer's alone.
    """

    @classmethod
    def of(cls, sampling: Sampling, prompt: IntArray) -> Self | None:
        """None when there is nothing to change."""
        is_plain = (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1, 0, 0)
        return None if is_plain and not sampling.logit_bias else cls(sampling, prompt)

    def __init__(self, sampling: Sampling, prompt: IntArray) -> None:
        self._biased_tokens = np.array([token for token, _ in sampling.logit_bias], np.int64)
        self._bias = np.array([bias for _, bias in sampling.logit_bias], np.float32)
        self._repetition = np.float32(sampling.repetition_penalty)
        self._presence, self._frequency = sampling.presence_penalty, sampling.frequency_penalty
        self._tokens = np.unique(prompt) if self._repetition != 1 else np.zeros(0, np.int64)  # that a penalty concerns
        self._subtracted = np.zeros(len(self._tokens), np.float32)  # from the logit of each of them
        self._num_tokens = len(self._tokens)  # the rest of both arrays is room for more
        self._places = {token: place for place, token in enumerate(self._tokens.tolist())}
        self._answered: set[int] = set()

    def apply(self, logits: FloatArray) -> None:
        """Change `logits` [V] in place."""
        apply_all([self], logits[None], [0])

    @property
    def biased(self) -> tuple[IntArray, FloatArray]:
        """Tokens, and what is added to their logits."""
        return self._biased_tokens, self._bias

    @property
    def penalised(self) -> tuple[IntArray, FloatArray, np.float32]:
        """Tokens, what is taken from their logits, and by what these are divided before."""
        return self._tokens[: self._num_tokens], self._subtracted[: self._num_tokens], self._repetition

    def count(self, token: int) -> None:
        """Note a token of the answer."""
        place = self._places.get(token)
        if place is None:
            place = self._add(token)
        if token not in self._answered:
            self._answered.add(token)
            self._subtracted[place] += self._presence
        self._subtracted[place] += self._frequency

    def _add(self, token: int) -> int:
        place = self._places[token] = self._num_tokens
        if place == len(self._tokens):
            room = np.zeros(max(64, place), np.int64)
            self._tokens = np.concatenate([self._tokens, room])
            self._subtracted = np.concatenate([self._subtracted, room.astype(np.float32)])
        self._tokens[place] = token
        self._num_tokens += 1
        return place


def apply_all(changes: Sequence[LogitChanges], rows: FloatArray, places: Sequence[int]) -> None:
    """Change some of contiguous `rows` [n, V] in place, each by its own changes; `places` say which these are."""
    if not changes:
        return
    logits, starts = rows.reshape(-1), [place * rows.shape[1] for place in places]
    biased = [each.biased for each in changes]
    if any(len(tokens) for tokens, _ in biased):
        where = np.concatenate([start + tokens for start, (tokens, _) in zip(starts, biased, strict=True)])
        logits[where] += np.concatenate([bias for _, bias in biased])
    penalised = [each.penalised for each in changes]
    where = np.concatenate([start + tokens for start, (tokens, _, _) in zip(starts, penalised, strict=True)])
    values = logits[where]
    divisors = np.repeat([divisor for _, _, divisor in penalised], [len(tokens) for tokens, _, _ in penalised])
    values = np.where(values < 0, values * divisors, values / divisors)
    logits[where] = values - np.concatenate([subtracted for _, subtracted, _ in penalised])
