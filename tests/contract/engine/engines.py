"""The engines that we have, a listener that writes down what they say, and a request."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from tidemill_models.package import load_package
from tidemill_serving.decoder.devices.cpu import CpuDevice
from tidemill_serving.decoder.devices.device import Device, FloatArray, IntArray
from tidemill_serving.decoder.devices.fake import FakeDevice
from tidemill_serving.decoder.engine import DecoderEngine
from tidemill_serving.decoder.model import DecoderModel
from tidemill_serving.decoder.sequence import Limits
from tidemill_serving.decoder.settings import DecoderSettings
from tidemill_serving.engine import Engine, GenerationRequest, Phase, SequenceOutput, Step
from tidemill_serving.package_engine import PackageEngine

TINY_LLAMA = Path(__file__).parents[2] / "models" / "tiny-llama"
NUM_SLOTS, NUM_WAITING_PLACES = 4, 2
TICK = timedelta(milliseconds=5)
LONG = 900  # tokens: longer than any of these tests waits
CONTEXT_LENGTH = 1024


class Listener:
    """Writes down what the engine says, and lets the test wait for it."""

    def __init__(self) -> None:
        self.phases: list[tuple[Phase, float, str]] = []
        self.steps: list[Step] = []
        self.threads: set[str] = set()
        self._said = threading.Condition()

    def on_phase(self, phase: Phase, progress: float, detail: str) -> None:
        with self._said:
            self.phases.append((phase, progress, detail))
            self.threads.add(threading.current_thread().name)
            self._said.notify_all()

    def on_step(self, step: Step) -> None:
        with self._said:
            self.steps.append(step)
            self.threads.add(threading.current_thread().name)
            self._said.notify_all()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        with self._said:
            assert self._said.wait_for(condition, timeout=60), "the engine did not come to it within 60 s"

    def outputs_of(self, sequence_id: int) -> list[SequenceOutput]:
        return [output for step in self.steps for output in step.outputs if output.sequence_id == sequence_id]

    def end_of(self, sequence_id: int) -> SequenceOutput | None:
        return next((output for output in self.outputs_of(sequence_id) if output.finish_reason is not None), None)

    def wait_for_end_of(self, sequence_id: int) -> SequenceOutput:
        self.wait_until(lambda: self.end_of(sequence_id) is not None)
        end = self.end_of(sequence_id)
        assert end is not None
        return end

    def tokens_of(self, sequence_id: int) -> list[int]:
        return [token for output in self.outputs_of(sequence_id) for token in output.token_ids]


class PacedCpuDevice(CpuDevice):
    """So slow that what is to be caught running still runs."""

    def decode(self, token_ids: IntArray, num_past: IntArray) -> FloatArray:
        time.sleep(TICK.total_seconds())
        return super().decode(token_ids, num_past)


def _decoder(device: Device) -> Engine:
    model = DecoderModel.from_package(load_package(TINY_LLAMA))
    endless = replace(model, limits=Limits(CONTEXT_LENGTH, frozenset()))  # answers end where the test says
    settings = DecoderSettings(num_slots=NUM_SLOTS, num_waiting_places=NUM_WAITING_PLACES)
    return DecoderEngine(endless, device, settings)


ENGINES: dict[str, Callable[[], Engine]] = {
    "decoder on cpu": lambda: _decoder(PacedCpuDevice(num_threads=1, spinning=False)),
    "decoder on fake": lambda: _decoder(FakeDevice(tick=TICK)),
    "package of decoder on fake": lambda: PackageEngine(TINY_LLAMA, lambda _package: _decoder(FakeDevice(tick=TICK))),
}


def request(sequence_id: int, max_tokens: int = 5, *, deadline: float | None = None) -> GenerationRequest:
    return GenerationRequest(sequence_id, (40 + sequence_id % 100, 41, 42), max_tokens, deadline=deadline)


def idle(engine: Engine) -> bool:
    load = engine.load()
    return load.num_running == load.num_waiting == 0
