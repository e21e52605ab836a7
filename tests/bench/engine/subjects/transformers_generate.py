"""transformers' `generate` on the processor, in float32."""

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from tests.bench.engine.subjects.base import Given, Job, Subject, one_at_a_time, serve


class Transformers(Subject):
    """See `Subject`."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        torch.set_num_threads(given.threads)
        self._model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32).eval()

    def run(self, jobs: Sequence[Job]) -> list[list[float]]:
        """See Subject."""
        return one_at_a_time(jobs, self._generate)

    def _generate(self, prompts: list[list[int]], num_tokens: int) -> "_Steps":
        return _Steps(self._model, prompts, num_tokens)

    def greedy(self, prompt: list[int], num_tokens: int) -> list[int]:
        """See Subject."""
        steps = self._generate([prompt], num_tokens)
        for _ in steps:
            pass
        return steps.token_ids[0]

    def last_logits(self, prompt: list[int]) -> np.ndarray:
        """See Subject."""
        with torch.inference_mode():
            return self._model(torch.tensor([prompt])).logits[0, -1].numpy()


class _Steps:
    """`generate` in a thread of its own, since it does not come back between its steps."""

    def __init__(self, model: Any, prompts: list[list[int]], num_tokens: int) -> None:
        self._model, self._prompts, self._num_tokens = model, prompts, num_tokens
        self.token_ids: list[list[int]] = []  # of each prompt, once all steps are taken

    def __iter__(self) -> Iterator[Any]:
        steps: queue.SimpleQueue[bool] = queue.SimpleQueue()

        def note(ids: Any, scores: Any, **_: Any) -> Any:
            steps.put(True)
            return torch.zeros(len(ids), dtype=torch.bool)

        ids = torch.tensor(self._prompts)
        wishes: dict[str, Any] = {
            "max_new_tokens": self._num_tokens,
            "min_new_tokens": self._num_tokens,
            "do_sample": False,
        }
        wishes |= {"attention_mask": torch.ones_like(ids), "stopping_criteria": [note], "pad_token_id": 0}

        def generate() -> None:
            self.token_ids = self._model.generate(ids, **wishes)[:, ids.shape[1] :].tolist()

        thread = threading.Thread(target=generate)
        thread.start()
        for _ in range(self._num_tokens):
            yield steps.get()
        thread.join()


if __name__ == "__main__":
    serve(Transformers, ("transformers", "torch"))
