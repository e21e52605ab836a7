"""A first, quick figure of the decoder engine on this machine: decode, prefill, and what a tick costs beside its runs
(processor time of the engine's thread, which other programs on the machine do not distort).

    python -m tests.bench.engine [--package FOLDER] [--threads N] [--json FILE]

Without a package it takes the bundled models and the tests' tiny one. It measures through the whole engine (thread,
listener, text), greedily, without ends of sequence, and prints medians. Peers are not run here, so no comparison is
made; absolute figures move by 20 to 40 % with what else the machine does.
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tidemill_models.package import bundled_packages, load_package
from tidemill_serving.decoder.devices.cpu import CpuDevice
from tidemill_serving.decoder.engine import DecoderEngine, DecoderModel
from tidemill_serving.decoder.sequence import Limits
from tidemill_serving.decoder.settings import DecoderSettings
from tidemill_serving.engine import GenerationRequest, Phase, Step

TINY = Path(__file__).parents[1] / "models" / "tiny-llama"
BATCHES = (1, 4, 8)
NUM_ROUNDS = 7
PROMPT_LENGTH = 32


@dataclass(frozen=True)
class Row:
    """One measured figure."""

    model: str
    metric: str
    batch: int
    value: float
    unit: str


class TimedDevice(CpuDevice):
    """Adds up the processor time that the engine's own thread spends in runs."""

    seconds = 0.0

    def decode(self, token_ids: Any, num_past: Any) -> Any:
        start = time.thread_time()
        logits = super().decode(token_ids, num_past)
        self.seconds += time.thread_time() - start
        return logits

    def extend(self, slot: int, token_ids: Any, num_past: int) -> Any:
        start = time.thread_time()
        logits = super().extend(slot, token_ids, num_past)
        self.seconds += time.thread_time() - start
        return logits


class Stopwatch:
    """Notes when each step ended, and what the engine's thread had spent outside of runs by then."""

    def __init__(self, device: TimedDevice) -> None:
        self.settled = threading.Event()
        self.phase = Phase.LOADING
        self._device = device
        self._ended = threading.Event()
        self._num_left = 0
        self.marks: list[tuple[float, float, int]] = []  # seconds, seconds of processor time, tokens of the step

    def on_phase(self, phase: Phase, progress: float, detail: str) -> None:
        self.phase = phase
        if phase in {Phase.READY, Phase.FAILED}:
            self.settled.set()

    def on_step(self, step: Step) -> None:
        num_tokens = sum(len(output.token_ids) for output in step.outputs)
        self.marks.append((time.perf_counter(), time.thread_time() - self._device.seconds, num_tokens))
        self._num_left -= sum(output.finish_reason is not None for output in step.outputs)
        if self._num_left == 0:
            self._ended.set()

    def run(self, engine: DecoderEngine, requests: list[GenerationRequest]) -> float:
        """Run the requests to their ends; returns when they were submitted."""
        self.marks.clear()
        self._ended.clear()
        self._num_left = len(requests)
        start = time.perf_counter()
        for request in requests:
            engine.submit(request)
        assert self._ended.wait(300), "the engine did not answer within 5 minutes"
        return start


@contextmanager
def running(package: Path, threads: int) -> Iterator[tuple[DecoderEngine, Stopwatch, Limits, float]]:
    """A ready engine, the stopwatch that listens to it, the model's limits and how long the start took."""
    settings = DecoderSettings(num_slots=max(BATCHES), num_threads=threads)
    model = DecoderModel.from_package(load_package(package))
    limits = Limits(model.limits.context_length, frozenset())
    device = TimedDevice(num_threads=settings.threads(), spinning=settings.spinning)
    engine, watch = DecoderEngine(replace(model, limits=limits), device, settings), Stopwatch(device)
    start = time.perf_counter()
    engine.start(watch)
    watch.settled.wait()
    assert watch.phase is Phase.READY
    try:
        yield engine, watch, limits, time.perf_counter() - start
    finally:
        engine.close()


def prompt(length: int) -> list[int]:
    """Tokens that every vocabulary has and no tokenizer marks special."""
    return np.random.default_rng(length).integers(10, 250, length).tolist()


def measure_decode(engine: DecoderEngine, watch: Stopwatch, limits: Limits, batch: int) -> tuple[float, float]:
    """Tokens per second while `batch` sequences decode together, and processor seconds of a tick outside of its run."""
    num_tokens = min(128, limits.context_length - PROMPT_LENGTH)
    watch.run(engine, [GenerationRequest(i, prompt(PROMPT_LENGTH), num_tokens) for i in range(batch)])
    full = [mark for mark in watch.marks if mark[2] == batch]
    (start, start_own, _), (end, end_own, _) = full[0], full[-1]
    num_ticks = len(full) - 1
    return batch * num_ticks / (end - start), (end_own - start_own) / num_ticks


def measure(package: Path, threads: int) -> list[Row]:
    """All rows of one model."""
    with running(package, threads) as (engine, watch, limits, start_s):
        rows = [Row(package.name, "start to ready", 1, start_s * 1e3, "ms")]
        for batch in BATCHES:
            rounds = [measure_decode(engine, watch, limits, batch) for _ in range(NUM_ROUNDS)]
            speeds, overheads = zip(*rounds, strict=True)
            rows.append(Row(package.name, "decode", batch, statistics.median(speeds), "tokens/s"))
            rows.append(Row(package.name, "tick minus run", batch, statistics.median(overheads) * 1e3, "ms"))
        length = min(500, limits.context_length - 8)
        request = GenerationRequest(1, prompt(length), 1)
        firsts = []
        for _ in range(NUM_ROUNDS):
            start = watch.run(engine, [request])
            firsts.append(watch.marks[-1][0] - start)
        first = statistics.median(firsts)
        rows.append(Row(package.name, f"first token after {length}", 1, first * 1e3, "ms"))
        rows.append(Row(package.name, f"prefill of {length}", 1, length / first, "tokens/s"))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, action="append", help="a model package; may be given several times")
    parser.add_argument("--threads", type=int, default=0, help="threads of a run; 0: one for each processor")
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    given = parser.parse_args()
    packages = given.package or [*bundled_packages(), TINY]
    rows = [row for package in packages for row in measure(package, given.threads)]
    table = Table("model", "what", "batch", "value", "unit", title="Tidemill's decoder engine, medians")
    for row in rows:
        value = f"{row.value:,.0f}" if row.value >= 100 else f"{row.value:.3f}"
        table.add_row(row.model, row.metric, str(row.batch), value, row.unit)
    Console().print(table)
    if given.json:
        content = [{"engine": "tidemill", **vars(row)} for row in rows]
        given.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
