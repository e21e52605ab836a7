"""onnxruntime-genai's Generator on the same file."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime_genai as og

from tests.bench.engine.subjects.base import Given, Job, Subject, one_at_a_time, serve


class GenAI(Subject):
    """See `Subject`. Nobody joins or leaves a Generator's batch."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        config = og.Config(str(given.model))
        options = {"intra_op_num_threads": given.threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = og.Model(config)

    def _generator(self, prompts: list[list[int]], num_tokens: int) -> Any:
        parameters = og.GeneratorParams(self._model)
        length = len(prompts[0]) + num_tokens
        parameters.set_search_options(batch_size=len(prompts), max_length=length, min_length=length, do_sample=False)
        generator = og.Generator(self._model, parameters)
        generator.append_tokens(np.array(prompts, np.int32))
        return generator

    def _generate(self, prompts: list[list[int]], num_tokens: int) -> Iterator[None]:
        generator = self._generator(prompts, num_tokens)
        for _ in range(num_tokens):
            generator.generate_next_token()
            yield

    def run(self, jobs: Sequence[Job]) -> list[list[float]]:
        """See Subject."""
        return one_at_a_time(jobs, self._generate)

    def greedy(self, prompt: list[int], num_tokens: int) -> list[int]:
        """See Subject."""
        generator = self._generator([prompt], num_tokens)
        for _ in range(num_tokens):
            generator.generate_next_token()
        return [int(token_id) for token_id in generator.get_sequence(0)[len(prompt) :]]

    def last_logits(self, prompt: list[int]) -> np.ndarray:
        """See Subject."""
        logits = np.asarray(self._generator([prompt], 8).get_logits(), np.float32)
        return logits.reshape(-1, logits.shape[-1])[-1]


if __name__ == "__main__":
    serve(GenAI, ("onnxruntime-genai", "onnxruntime"))
