"""llama.cpp through llama-cpp-python's plain bindings, batched as its own server does: each step takes one token of
every running sequence, and prompts as far as the batch has room; a slot keeps what it computed, and a prompt that
begins alike goes on there.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp as llama
import numpy as np

from tests.bench.engine.subjects.base import Arrivals, Given, Job, Subject, serve

_BATCH_TOKENS = 512


@llama.llama_log_callback
def _swallow(level: int, text: bytes, data: Any) -> None:
    """llama.cpp logs more than it answers."""


class LlamaCpp(Subject):
    """See `Subject`."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        llama.llama_log_set(_swallow, ctypes.c_void_p(0))
        llama.llama_backend_init()
        parameters = llama.llama_model_default_params()
        self._model = llama.llama_model_load_from_file(str(given.model).encode(), parameters)
        assert self._model, f"{given.model} cannot be loaded"
        context = llama.llama_context_default_params()
        context.n_ctx = given.slots * given.context_length
        context.n_batch = context.n_ubatch = _BATCH_TOKENS
        context.n_seq_max = given.slots
        context.n_threads = context.n_threads_batch = given.threads
        self._context = llama.llama_init_from_model(self._model, context)
        self._vocabulary_size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model))
        self._batch = llama.llama_batch_init(_BATCH_TOKENS, 0, 1)
        self._free: dict[int, list[int]] = {slot: [] for slot in range(given.slots)}  # slot → tokens it has computed

    def run(self, jobs: Sequence[Job]) -> list[list[float]]:
        """See Subject."""
        return self._answer(jobs).times

    def greedy(self, prompt: list[int], num_tokens: int) -> list[int]:
        """See Subject."""
        return self._answer([Job(0.0, prompt, num_tokens)]).token_ids[0]

    def facts(self) -> dict[str, str]:
        """See Subject."""
        return {"built for": llama.llama_print_system_info().decode().strip()}

    def _answer(self, jobs: Sequence[Job]) -> Arrivals:
        arrivals = Arrivals(jobs)
        waiting: list[_Running] = []
        running: list[_Running] = []
        while True:
            waiting += [_Running(number, job) for number, job in arrivals.due()]
            while waiting and self._free:
                self._admit(waiting[0])
                running.append(waiting.pop(0))
            if not running:
                if not arrivals.wait():
                    return arrivals
                continue
            for one in self._step(running):
                arrivals.note(one.number, one.pending[0])
                if one.num_left == 0:
                    running.remove(one)
                    self._free[one.slot] = one.computed

    def _admit(self, one: "_Running") -> None:
        """Into the free slot that has computed the most of its prompt; the last token is always computed again."""

        def num_known(slot: int) -> int:
            return min(num_shared(self._free[slot], one.pending), len(one.pending) - 1)

        one.slot = max(self._free, key=num_known)
        known = num_known(one.slot)
        del self._free[one.slot]
        self._forget(one.slot, known)
        one.computed, one.pending = one.pending[:known], one.pending[known:]

    def _step(self, running: "list[_Running]") -> "list[_Running]":
        """One run; returns who got a token."""
        batch, ends = self._batch, []
        batch.n_tokens = 0
        for one in sorted(running, key=lambda one: len(one.pending)):  # who decodes comes first
            taken = one.pending[: _BATCH_TOKENS - batch.n_tokens]
            del one.pending[: len(taken)]
            for token in taken:
                self._put(token, len(one.computed), one.slot, is_last=False)
                one.computed.append(token)
            if taken and not one.pending:
                batch.logits[batch.n_tokens - 1] = 1
                ends.append((one, batch.n_tokens - 1))
        assert llama.llama_decode(self._context, batch) == 0
        for one, row in ends:
            one.pending = [int(self._logits(row).argmax())]
            one.num_left -= 1
        return [one for one, _ in ends]

    def _put(self, token: int, position: int, slot: int, *, is_last: bool) -> None:
        batch, i = self._batch, self._batch.n_tokens
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, position, 1, slot
        batch.logits[i] = int(is_last)
        batch.n_tokens = i + 1

    def _logits(self, row: int) -> np.ndarray:
        return np.ctypeslib.as_array(llama.llama_get_logits_ith(self._context, row), (self._vocabulary_size,))

    def _forget(self, slot: int, start: int) -> None:
        """What the slot has computed from `start` on."""
        llama.llama_memory_seq_rm(llama.llama_get_memory(self._context), slot, start, -1)

    def last_logits(self, prompt: list[int]) -> np.ndarray:
        """See Subject."""
        self._forget(0, 0)
        self._batch.n_tokens = 0
        for position, token in enumerate(prompt):
            self._put(token, position, 0, is_last=position == len(prompt) - 1)
        assert llama.llama_decode(self._context, self._batch) == 0
        logits = self._logits(len(prompt) - 1).copy()
        self._forget(0, 0)
        self._free[0] = []
        return logits


def num_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens they have in common at their start."""
    together = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(together) if a != b), min(len(one), len(other)))


class _Running:
    """A sequence with what is in the cache of it, and its tokens that are not there yet."""

    def __init__(self, number: int, job: Job) -> None:
        self.number, self.pending, self.num_left = number, list(job.prompt), job.max_tokens
        self.computed: list[int] = []
        self.slot = -1


if __name__ == "__main__":
    serve(LlamaCpp, ("llama-cpp-python",))
