"""The engine called directly, in a process of its own: no wire, no control plane, no event loop. What it made is noted
as it comes and read after the turn, so that the notes cost next to nothing.

    python -m tests.bench.platform.engine_process --package FOLDER [--device fake --tick-ms N] [--threads N]
"""

import argparse
import json
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

from tests.bench.platform.load import Load, Trace, requests, summary
from tidemill_models.package import load_package
from tidemill_models.tokenizer import Tokenizer
from tidemill_serving.decoder.devices.cpu import CpuDevice
from tidemill_serving.decoder.devices.fake import FakeDevice
from tidemill_serving.decoder.engine import DecoderEngine
from tidemill_serving.decoder.model import DecoderModel
from tidemill_serving.decoder.settings import DecoderSettings
from tidemill_serving.engine import GenerationRequest, Phase, Step

_PATIENCE_SECONDS = 600.0


class Caller:
    """Runs loads through an engine."""

    def __init__(self, package: Path, device: str, tick_ms: int, threads: int) -> None:
        opened = load_package(package)
        self._tokenizer = Tokenizer.from_file(opened.tokenizer_path)
        settings = DecoderSettings(num_slots=opened.manifest.scaling.slots, num_threads=threads)
        made = (
            CpuDevice(num_threads=settings.threads(), spinning=settings.spinning)
            if device == "cpu"
            else FakeDevice(vocab_size=self._tokenizer.vocabulary_size, tick=timedelta(milliseconds=tick_ms))
        )
        self._engine = DecoderEngine(DecoderModel.from_package(opened), made, settings)
        self._settled = threading.Event()
        self._phase = Phase.LOADING
        self._ended = threading.Event()

    def start(self) -> None:
        """Load and warm the model."""
        self._engine.start(self)
        assert self._settled.wait(_PATIENCE_SECONDS)
        assert self._phase is Phase.READY

    def close(self) -> None:
        """End the engine's thread."""
        self._engine.close()

    def on_phase(self, phase: Phase, progress: float, detail: str) -> None:
        """See EngineListener."""
        self._phase = phase
        if phase in {Phase.READY, Phase.FAILED}:
            self._settled.set()

    def on_step(self, step: Step) -> None:
        """See EngineListener."""
        self._steps.append((time.perf_counter(), step))
        for output in step.outputs:
            if output.finish_reason is not None:
                self._start_next(output.sequence_id % self._load.streams)
                self._num_running -= 1
        if not self._num_running:
            self._ended.set()

    def run(self, load: Load) -> dict[str, float]:
        """One turn."""
        self._load = load
        self._prompts = [self._tokenizer.encode(prompt) for prompt in load.prompts()]
        self._traces: dict[int, Trace] = {}
        self._steps: list[tuple[float, Step]] = []
        self._left = load.pauses()
        self._num_running = load.streams * load.rounds
        self._ended.clear()
        before = time.process_time()
        for stream in range(load.streams):
            self._start_next(stream)
        assert self._ended.wait(_PATIENCE_SECONDS)
        cpu = time.process_time() - before
        for now, step in self._steps:
            for output in step.outputs:
                self._traces[output.sequence_id].saw(len(output.token_ids), now)
        found = summary(list(self._traces.values()), cpu)
        assert found["tokens"] == load.streams * load.rounds * load.max_tokens, found
        return found

    def _start_next(self, stream: int) -> None:
        """Start the stream's next generation after its pause, if it has one left."""
        if not self._left[stream]:
            return
        pause = self._left[stream].pop(0)
        sequence_id = len(self._left[stream]) * self._load.streams + stream
        if pause:
            threading.Timer(pause, self._start, (stream, sequence_id)).start()
        else:
            self._start(stream, sequence_id)

    def _start(self, stream: int, sequence_id: int) -> None:
        self._traces[sequence_id] = Trace(time.perf_counter())
        self._engine.submit(GenerationRequest(sequence_id, self._prompts[stream], self._load.max_tokens))


def main() -> None:
    """Load once, then a turn for each line of stdin."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--device", choices=("cpu", "fake"), default="cpu")
    parser.add_argument("--tick-ms", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    caller = Caller(given.package, given.device, given.tick_ms, given.threads)
    caller.start()
    print(json.dumps({"ready": True}), flush=True)
    for load in requests(sys.stdin):
        print(json.dumps(caller.run(load)), flush=True)
    caller.close()


if __name__ == "__main__":
    main()
