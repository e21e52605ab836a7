"""A device without a model, for tests of what stands above it and for benches of the wire.

Its answers are a pure function of the tokens before them (see `fake_answer`), read from a cache that is kept and
moved like a real one, so that a slot mistaken or written twice changes the text. A run that counts on more than its
slot holds fails, and `tokens_in` says what a slot holds.
"""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np

from tidemill_serving.decoder.devices.device import DeviceError, FloatArray, IntArray, SavedCache
from tidemill_serving.decoder.devices.guard import Room

FIRST_ANSWER_TOKEN = 32  # the tokens below it never come up by themselves


class FakeDevice:
    """Answers each token within `tick`; `poison` is a token that makes every run that takes it fail."""

    def __init__(
        self,
        *,
        vocab_size: int = 512,
        tick: timedelta = timedelta(),
        load_time: timedelta = timedelta(),
        poison: int | None = None,
    ) -> None:
        self._vocab_size = vocab_size
        self._tick = tick.total_seconds()
        self._load_time = load_time.total_seconds()
        self._poison = poison
        self._cache = np.zeros((0, 0), np.int64)
        self._logits = np.zeros((0, vocab_size), np.float32)

    def load(self, graph: Path, *, num_slots: int, context_length: int, on_progress: Callable[[float], None]) -> int:
        """Take `load_time`; the graph is not read."""
        for tenth in range(10):
            on_progress(tenth / 10)
            if self._load_time:
                time.sleep(self._load_time / 10)
        self._room = Room(num_slots, context_length, self._vocab_size)
        self._cache = np.zeros((num_slots, context_length + 1), np.int64)
        self._tokens = np.zeros((num_slots, context_length), np.int64)
        self._lengths = np.zeros(num_slots, np.int64)
        self._logits = np.zeros((num_slots, self._vocab_size), np.float32)
        on_progress(1.0)
        return self._vocab_size

    def decode(self, token_ids: IntArray, num_past: IntArray) -> FloatArray:
        """Append one token to each of the first slots."""
        self._room.check_decode(token_ids, num_past)
        rows = np.arange(len(token_ids))
        self._check_held(rows, num_past)
        self._run(token_ids)
        digests: IntArray = _digest(self._cache[rows, num_past], token_ids)
        self._cache[rows, num_past + 1] = digests
        self._tokens[rows, num_past] = token_ids
        self._lengths[rows] = num_past + 1
        return self._answer(digests)

    def extend(self, slot: int, token_ids: IntArray, num_past: int) -> FloatArray:
        """Append tokens to one slot."""
        self._room.check_extend(slot, token_ids, num_past)
        self._check_held(np.array([slot]), np.array([num_past]))
        self._run(token_ids)
        row = self._cache[slot]
        for position, token in enumerate(token_ids, num_past):
            row[position + 1] = _digest(int(row[position]), int(token))
        end = num_past + len(token_ids)
        self._tokens[slot, num_past:end] = token_ids
        self._lengths[slot] = end
        logits: FloatArray = self._answer(row[end : end + 1])[0]
        return logits

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the start of a slot."""
        self.copy_in(target, self.copy_out(source, num_tokens))

    def copy_out(self, slot: int, num_tokens: int) -> SavedCache:
        """Copy the start of a slot out of the cache."""
        self._check_held(np.array([slot]), np.array([num_tokens]))
        return [self._cache[slot, : num_tokens + 1].copy(), self._tokens[slot, :num_tokens].copy()]

    def copy_in(self, slot: int, saved: SavedCache) -> None:
        """Put it back."""
        digests, tokens = saved
        self._cache[slot, : len(digests)] = digests
        self._tokens[slot, : len(tokens)] = tokens
        self._lengths[slot] = len(tokens)

    def tokens_in(self, slot: int) -> list[int]:
        """What the slot holds."""
        held: list[int] = self._tokens[slot, : self._lengths[slot]].tolist()
        return held

    def close(self) -> None:
        """Nothing to free."""

    def _check_held(self, slots: IntArray, num_past: IntArray) -> None:
        wrong = np.flatnonzero(num_past > self._lengths[slots])
        if len(wrong):
            slot = int(slots[wrong[0]])
            raise DeviceError(f"slot {slot} holds {self._lengths[slot]} tokens, not {num_past[wrong[0]]}")

    def _run(self, token_ids: IntArray) -> None:
        if self._tick:
            time.sleep(self._tick)
        if self._poison is not None and self._poison in token_ids:
            raise DeviceError("the token is poison")

    def _answer(self, digests: IntArray) -> FloatArray:
        """Logits with a single 1 in each row."""
        logits = self._logits[: len(digests)]
        logits[:] = 0.0
        logits[np.arange(len(digests)), _token_of(digests, self._vocab_size)] = 1.0
        return logits


def fake_answer(prompt: Sequence[int], num_tokens: int, vocab_size: int = 512) -> list[int]:
    """What a FakeDevice answers to a prompt, greedily."""
    digest, answer = 0, list[int]()
    for token in prompt:
        digest = _digest(digest, token)
    for _ in range(num_tokens):
        answer.append(_token_of(digest, vocab_size))
        digest = _digest(digest, answer[-1])
    return answer


_T = TypeVar("_T", int, IntArray)


def _digest(before: _T, token: _T) -> _T:
    """Of all tokens so far, from that of all but the last one."""
    return (before * 31 + token * 7 + 13) % 1_000_003


def _token_of(digest: _T, vocab_size: int) -> _T:
    return FIRST_ANSWER_TOKEN + digest % (vocab_size - FIRST_ANSWER_TOKEN)
