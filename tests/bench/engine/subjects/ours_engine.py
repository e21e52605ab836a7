"""Our decoder engine, opened as a replica opens it and called directly: its thread, its listener, its text; no wire."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from tests.bench.engine.subjects.base import Given, Job, Subject
from tidemill_models.package import ModelPackage, load_package
from tidemill_serving.decoder.devices.device import Device
from tidemill_serving.decoder.devices.ort_session import Meanwhile, runtime_name
from tidemill_serving.decoder.engine import DecoderEngine
from tidemill_serving.decoder.model import DecoderModel
from tidemill_serving.decoder.pieces_in_reading import PiecesInReading
from tidemill_serving.decoder.sequence import Limits
from tidemill_serving.decoder.settings import DecoderSettings
from tidemill_serving.engine import Engine, GenerationRequest, Phase, Step
from tidemill_serving.native import KernelsChoice
from tidemill_serving.package_engine import PackageEngine, cpu_device
from tidemill_serving.start_cache.cache import StartCache
from tidemill_serving.start_cache.prepared import PreparedGraph

_PATIENCE_SECONDS = 600.0


class RunClock:
    """Adds up the processor time that the engine's own thread spends in the device's runs."""

    def __init__(self, device: Device) -> None:
        self.seconds = 0.0
        for name in ("decode", "extend"):
            setattr(device, name, self._timed(getattr(device, name)))

    def _timed(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            start = time.thread_time()
            logits = run(*given)
            self.seconds += time.thread_time() - start
            return logits

        return timed


class Ours(Subject):
    """See `Subject`; it is the engine's listener, too."""

    def __init__(self, given: Given, cache: StartCache) -> None:
        """`cache` has begun to open the package."""
        super().__init__()
        self._given = given
        self._settled, self._ended = threading.Event(), threading.Event()
        self._kernels = cast("KernelsChoice", given.kernels)
        self._start_cache = cache
        self._copy: PreparedGraph | None = None
        self._settings = DecoderSettings(num_slots=given.slots, num_waiting_places=1000, num_threads=given.threads)
        self._engine = PackageEngine(given.model, self._build, cache=self._start_cache)
        self._engine.start(self)
        assert self._settled.wait(_PATIENCE_SECONDS)
        assert self._phase is Phase.READY, self._detail

    def _build(self, package: ModelPackage) -> Engine:
        cache = self._start_cache
        pieces = PiecesInReading(package, cache.token_pieces, cache.keep)
        model = DecoderModel.from_package(package, pieces)
        model = replace(model, limits=Limits(model.limits.context_length, frozenset()))  # no answer ends by itself
        self._copy = cache.graph_copy(package)
        meanwhile = Meanwhile(until_right=cache.until_right, python_is_free=pieces.begin)
        device = cpu_device(package, self._settings, self._copy, self._kernels, meanwhile)
        self._clock = RunClock(device)
        return DecoderEngine(model, device, self._settings)

    def on_phase(self, phase: Phase, progress: float, detail: str) -> None:
        """See EngineListener."""
        self._phase, self._detail = phase, detail
        if phase in {Phase.READY, Phase.FAILED}:
            self._settled.set()

    def on_step(self, step: Step) -> None:
        """See EngineListener."""
        now, start = time.perf_counter() - self._start, time.thread_time()
        self._own.append(start - self._clock.seconds - self._heard)
        for output in step.outputs:
            self._times[output.sequence_id] += [now] * len(output.token_ids)
            self._token_ids[output.sequence_id] += output.token_ids
            self._num_left -= output.finish_reason is not None
        if not self._num_left:
            self._ended.set()
        self._heard += time.thread_time() - start

    def run(self, jobs: Sequence[Job]) -> list[list[float]]:
        """See Subject."""
        self._times: list[list[float]] = [[] for _ in jobs]
        self._token_ids: list[list[int]] = [[] for _ in jobs]
        self._own: list[float] = []
        self._heard = 0.0  # seconds of processor time that this listener took, which are no engine's
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

    def greedy(self, prompt: list[int], num_tokens: int) -> list[int]:
        """See Subject."""
        self.run([Job(0.0, prompt, num_tokens)])
        return self._token_ids[0]

    def facts(self) -> dict[str, str]:
        """See Subject."""
        return {"computes with": runtime_name(self._kernels)}

    def last_logits(self, prompt: list[int]) -> np.ndarray:
        """By a device of its own: the engine's belongs to its thread."""
        package = load_package(self._given.model)
        device = cpu_device(package, self._settings, self._copy, self._kernels)
        device.load(package.graph_path, num_slots=1, context_length=1024, on_progress=lambda _: None)
        logits = device.extend(0, np.array(prompt, np.int64), 0).copy()
        device.close()
        return logits

    def wait_until_kept(self) -> None:
        """See Subject."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while self._copy is not None and not self._copy.is_made():
            assert time.monotonic() < until, "the prepared copy was never made"
            time.sleep(0.1)
