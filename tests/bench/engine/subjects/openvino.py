"""OpenVINO GenAI's continuous batching, with its prefix cache on, as its pipelines have it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from tests.bench.engine.subjects.base import Arrivals, Given, Job, Subject, serve


class OpenVINO(Subject):
    """See `Subject`. The weights' precision is the file's; the key/value cache's is OpenVINO's choice, 8 bits."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        self._given = given
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_seqs = given.slots
        scheduler.max_num_batched_tokens = 512
        scheduler.cache_size = 1
        scheduler.enable_prefix_caching = True
        self._properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": given.threads}
        if given.precision == "fp32":
            self._properties |= {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        if given.keep:
            self._properties["CACHE_DIR"] = str(given.keep)
        self._pipeline = genai.ContinuousBatchingPipeline(str(given.model), scheduler, "CPU", self._properties)
        self._num_requests = 0

    def run(self, jobs: Sequence[Job]) -> list[list[float]]:
        """See Subject."""
        return self._answer(jobs).times

    def greedy(self, prompt: list[int], num_tokens: int) -> list[int]:
        """See Subject."""
        return self._answer([Job(0.0, prompt, num_tokens)]).token_ids[0]

    def _answer(self, jobs: Sequence[Job]) -> Arrivals:
        arrivals = Arrivals(jobs)
        running: dict[int, Any] = {}
        while True:
            running |= {number: self._add(job) for number, job in arrivals.due()}
            if not running:
                if not arrivals.wait():
                    return arrivals
                continue
            self._pipeline.step()
            for number, handle in list(running.items()):
                while handle.can_read():
                    for made in handle.read().values():
                        for token_id in made.generated_ids:
                            arrivals.note(number, int(token_id))
                if len(arrivals.times[number]) >= jobs[number].max_tokens:
                    del running[number]

    def _add(self, job: Job) -> Any:
        wishes = genai.GenerationConfig()
        wishes.max_new_tokens = wishes.min_new_tokens = job.max_tokens
        wishes.ignore_eos, wishes.do_sample = True, False
        self._num_requests += 1
        return self._pipeline.add_request(self._num_requests, ov.Tensor(np.array([job.prompt], np.int64)), wishes)

    def last_logits(self, prompt: list[int]) -> np.ndarray:
        """By the plain model with a cache of the same precision: the pipeline does not show logits."""
        model = ov.Core().compile_model(str(self._given.model / "openvino_model.xml"), "CPU", self._properties)
        length = len(prompt)
        feed = {"input_ids": np.array([prompt], np.int64), "attention_mask": np.ones((1, length), np.int64)}
        feed |= {"position_ids": np.arange(length)[None], "beam_idx": np.zeros(1, np.int32)}
        return np.array(model.create_infer_request().infer(feed)[0])[0, -1]


if __name__ == "__main__":
    serve(OpenVINO, ("openvino", "openvino-genai"))
