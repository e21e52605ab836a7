"""What a caller's wishes do to logits before a token is chosen: a bias of some tokens, and penalties of those seen.

Only the logits of the tokens concerned are touched, so that the cost grows with them and not with the vocabulary.
"""

from typing import Self

import numpy as np

from tidemill_serving.decoder.devices.device import FloatArray, IntArray
from tidemill_serving.engine import Sampling
from tidemill_serving.native.choosing import RowWish


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
        logits[self._biased_tokens] += self._bias
        tokens = self._tokens[: self._num_tokens]
        values = logits[tokens]
        values = np.where(values < 0, values * self._repetition, values / self._repetition)
        logits[tokens] = values - self._subtracted[: self._num_tokens]

    def write_into(self, record: RowWish) -> None:
        """Say where the lists are, and how long."""
        record.biased, record.bias = self._biased_tokens.ctypes.data, self._bias.ctypes.data
        record.num_biased = len(self._biased_tokens)
        record.penalised, record.subtracted = self._tokens.ctypes.data, self._subtracted.ctypes.data
        record.num_penalised = self._num_tokens

    def count(self, token: int) -> bool:
        """Note a token of the answer; returns whether the lists changed their places or length."""
        place = self._places.get(token)
        is_new = place is None
        if place is None:
            place = self._add(token)
        if token not in self._answered:
            self._answered.add(token)
            self._subtracted[place] += self._presence
        self._subtracted[place] += self._frequency
        return is_new

    def _add(self, token: int) -> int:
        place = self._places[token] = self._num_tokens
        if place == len(self._tokens):
            room = np.zeros(max(64, place), np.int64)
            self._tokens = np.concatenate([self._tokens, room])
            self._subtracted = np.concatenate([self._subtracted, room.astype(np.float32)])
        self._tokens[place] = token
        self._num_tokens += 1
        return place
