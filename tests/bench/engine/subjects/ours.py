"""Our decoder engine, called directly: its thread, its listener, its text; no wire."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tests.bench.engine.subjects.base import Given, Job, serve
from tidemill_models.package import load_package
from tidemill_serving.decoder.devices.cpu import CpuDevice
from tidemill_serving.decoder.engine import DecoderEngine, DecoderModel
from tidemill_serving.decoder.sequence import Limits
from tidemill_serving.decoder.settings import DecoderSettings
from tidemill_serving.engine import GenerationRequest, Phase, Step

_PATIENCE_SECONDS = 600.0


class TimedDevice(CpuDevice):
    """Adds up the processor time that the engine's own thread spends in runs."""

    seconds = 0.0

    def decode(self, *given: Any) -> Any:
        start = time.thread_time()
        logits = super().decode(*given)
        self.seconds += time.thread_time() - start
        return logits

    def extend(self, *given: Any) -> Any:
        start = time.thread_time()
        logits = super().extend(*given)
        self.seconds += time.thread_time() - start
        return logits


class Ours:
    """See `Subject`; it is the engine's listener, too."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self.extra: dict[str, float] = {}
        model = DecoderModel.from_package(load_package(given.model))
        model = replace(model, limits=Limits(model.limits.context_length, frozenset()))
        settings = DecoderSettings(num_slots=given.slots, num_waiting_places=1000, num_threads=given.threads)
        self._graph = model.graph
        self._device = TimedDevice(num_threads=settings.threads(), spinning=settings.spinning)
        self._engine = DecoderEngine(model, self._device, settings)
        self._settled, self._ended = threading.Event(), threading.Event()
        self._engine.start(self)
        assert self._settled.wait(_PATIENCE_SECONDS)
        assert self._phase is Phase.READY

    def on_phase(self, phase: Phase, progress: float, detail: str) -> None:
        """See EngineListener."""
        self._phase = phase
        if phase in {Phase.READY, Phase.FAILED}:
            self._settled.set()

    def on_step(self, step: Step) -> None:
        """See EngineListener."""
        now = time.perf_counter() - self._start
        self._own.append(time.thread_time() - self._device.seconds)
        for output in step.outputs:
            self._times[output.sequence_id] += [now] * len(output.token_ids)
            self._num_left -= output.finish_reason is not None
        if not self._num_left:
            self._ended.set()

    def run(self, jobs: Sequence[Job]) -> list[list[float]]:
        """See Subject."""
        self._times: list[list[float]] = [[] for _ in jobs]
        self._own: list[float] = []
        self._num_left = len(jobs)
        self._ended.clear()
        self._start = time.perf_counter()
        for number, job in sorted(enumerate(jobs), key=lambda entry: entry[1].at):
            delay = job.at - (time.perf_counter() - self._start)
            if delay > 0:
                time.sleep(delay)
            self._engine.submit(GenerationRequest(number, job.prompt, job.max_tokens))
        assert self._ended.wait(_PATIENCE_SECONDS)
        ticks = np.diff(self._own)
        self.extra = {"own_ms": 1e3 * float(np.median(ticks))} if len(ticks) else {}
        return self._times

    def last_logits(self, prompt: list[int]) -> np.ndarray:
        """By a device of its own: the engine's belongs to its thread."""
        device = CpuDevice(num_threads=self._given.threads, spinning=True)
        device.load(self._graph, num_slots=1, context_length=1024, on_progress=lambda _: None)
        logits = device.extend(0, np.array(prompt, np.int64), 0).copy()
        device.close()
        return logits


if __name__ == "__main__":
    serve(Ours, ("onnxruntime", "numpy"))
