"""Runs the plan: all engines of one family of precisions in the same turns."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median as median_of
from tempfile import TemporaryDirectory

import numpy as np

from tests.bench.common.figures import Sample, in_turns, median, ratio
from tests.bench.common.processes import Child, child
from tests.bench.engine import workloads
from tests.bench.engine.peers import ENGINES, FAMILIES, OURS, Engine
from tests.bench.engine.plan import Plan
from tests.bench.engine.rows import OVERHEAD_TARGET, Row, bandwidth_target, ratio_target
from tests.bench.engine.workloads import Prompts
from tests.bench.models.shapes import Shape

Tell = Callable[[str], None]
_UNITS = {"decode": "tokens/s", "prefill": "tokens/s"}


@dataclass(slots=True)
class Measured:
    """What a run found."""

    rows: list[Row] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Entrant:
    """An engine with one of its files."""

    engine: Engine
    precision: str
    model: Path

    @property
    def name(self) -> str:
        """For turns and for people."""
        return f"{self.engine.name} {self.precision}"


class Family:
    """One model in one family of precisions, on so many threads."""

    def __init__(self, plan: Plan, shape: Shape, family: str, threads: int, found: Measured, tell: Tell) -> None:
        self._plan, self._shape, self._family, self._threads = plan, shape, family, threads
        self._found, self._tell = found, tell
        self._prompts = Prompts(shape.vocabulary_size)
        self._entrants: dict[str, Entrant] = {}
        for precision in FAMILIES[family]:
            for engine in ENGINES:
                self._enter(engine, precision)

    def _enter(self, engine: Engine, precision: str) -> None:
        plan = self._plan
        if precision not in engine.files or precision in plan.left_out or (engine.name != OURS and not plan.with_peers):
            return
        if why := engine.why_absent(self._shape, precision):
            self._found.absent.append(f"{engine.name} {precision} of {self._shape.name}: {why}")
            return
        entrant = Entrant(engine, precision, engine.model(self._shape, precision))
        self._entrants[entrant.name] = entrant

    def measure(self) -> None:
        """All metrics of the plan."""
        metrics = set(self._plan.metrics)
        with ExitStack() as stack:
            children = {}
            for name, entrant in self._entrants.items():
                if process := self._try_start(entrant, stack):
                    children[name] = process
                    self._found.versions |= process.said["versions"]
            for metric in ("memory", "decode", "prefill", "arrivals", "prefix", "accuracy"):
                if metric in metrics:
                    self._tell(f"{self._shape.name}: {metric} of {', '.join(children)}")
                    getattr(self, f"_{metric}")(children)
        if "cold" in metrics:
            self._cold_starts(children)

    def _try_start(self, entrant: Entrant, stack: ExitStack) -> Child | None:
        """The entrant's process, loaded; None for a peer that does not start, which the report says."""
        try:
            return stack.enter_context(self._start(entrant))
        except AssertionError as error:
            if entrant.engine.name == OURS:
                raise
            self._found.absent.append(f"{entrant.name} of {self._shape.name}: it did not start: {error}")
            return None

    @contextmanager
    def _start(self, entrant: Entrant) -> Iterator[Child]:
        os.environ["TIDEMILL_BENCH_STARTED"] = str(time.time())
        arguments = ["--model", str(entrant.model), "--precision", entrant.precision, "--threads", str(self._threads)]
        arguments += ["--slots", str(max(self._plan.batches))]
        with child(entrant.engine.module, *arguments, python=entrant.engine.python) as started:
            yield started

    def _add(self, name: str, metric: str, batch: int, value: float, unit: str, **more: object) -> None:
        entrant = self._entrants[name]
        row = Row(self._shape.name, entrant.engine.name, entrant.precision, metric, batch, value, unit, **more)  # type: ignore[arg-type]
        self._found.rows.append(row)

    def _decode(self, children: dict[str, Child]) -> None:
        for batch in self._plan.batches:

            def turn(process: Child, batch: int = batch) -> Sample:
                jobs = workloads.decode_jobs(self._prompts, batch, self._plan.decode_tokens)
                said = process.ask(do="run", jobs=workloads.as_json(jobs))
                return {**workloads.decode_sample(said["times"]), "own_ms": said.get("own_ms", 0.0)}

            self._compare(children, turn, "decode", batch)

    def _prefill(self, children: dict[str, Child]) -> None:
        length = self._plan.prefill_length

        def turn(process: Child) -> Sample:
            jobs = [workloads.Job(0.0, self._prompts.make(length), 1)]
            return workloads.prefill_sample(process.ask(do="run", jobs=workloads.as_json(jobs))["times"], length)

        self._compare(children, turn, "prefill", 1)

    def _compare(self, children: dict[str, Child], turn: Callable[[Child], Sample], metric: str, batch: int) -> None:
        """Medians of all, the ratios of ours to its peers, and what only ours has."""
        samples = in_turns(self._plan.turns, {name: partial(turn, process) for name, process in children.items()})
        for name, taken in samples.items():
            self._add(name, metric, batch, median(taken, metric), _UNITS[metric])
            if self._entrants[name].engine.name != OURS:
                continue
            if metric == "decode":
                own = median(taken, "own_ms")
                self._add(name, "tick less its runs", batch, own, "ms", target=OVERHEAD_TARGET)
            for other, entrant in self._entrants.items():
                if self._are_compared(self._entrants[name], entrant):
                    peer = entrant.engine.name
                    target = ratio_target(self._shape.name, peer, self._family, metric, batch)
                    value = ratio(taken, samples[other], metric)
                    self._add(name, f"{metric} by {other}", batch, value, "ratio", peer=peer, target=target)

    def _are_compared(self, ours: Entrant, other: Entrant) -> bool:
        """onnxruntime-genai runs our very file; the others what they make of the same weights."""
        same_file = ours.model == other.model
        return other.engine.name != OURS and (same_file or other.engine.name != "onnxruntime-genai")

    def _arrivals(self, children: dict[str, Child]) -> None:
        """The same arrivals for all, at two thirds of what ours bears."""
        ours = next(name for name in children if self._entrants[name].engine.name == OURS)
        burst = workloads.arrival_jobs(self._prompts, self._plan.num_arrivals, 1e6)
        times = children[ours].ask(do="run", jobs=workloads.as_json(burst))["times"]
        rate = 2 / 3 * len(burst) / max(each[-1] for each in times)
        for name, process in children.items():
            jobs = workloads.arrival_jobs(self._prompts, self._plan.num_arrivals, rate)
            times = process.ask(do="run", jobs=workloads.as_json(jobs))["times"]
            for metric, value in workloads.arrival_sample(jobs, times).items():
                self._add(name, f"{metric}, {rate:.2f} arrivals/s", len(jobs), value, "ms")

    def _prefix(self, children: dict[str, Child]) -> None:
        for name, process in children.items():
            jobs = workloads.prefix_jobs(self._prompts, self._plan.num_followers)
            times = process.ask(do="run", jobs=workloads.as_json(jobs))["times"]
            for metric, value in workloads.prefix_sample(jobs, times).items():
                self._add(name, metric, 1, value, "times" if "shorter" in metric else "ms")

    def _memory(self, children: dict[str, Child]) -> None:
        for name, process in children.items():
            said = process.ask(do="memory")
            self._add(name, "resident memory, loaded", 1, said["resident"] / 2**20, "MiB")
            self._add(name, "peak memory while loading", 1, said["peak"] / 2**20, "MiB")

    def _accuracy(self, children: dict[str, Child]) -> None:
        reference = np.load(self._shape.folder / "reference.npz")
        with TemporaryDirectory() as folder:
            for name, process in children.items():
                path = Path(folder) / "logits.npy"
                process.ask(do="logits", prompt=reference["prompt"].tolist(), to=str(path))
                value = workloads.cosine(np.load(path).ravel(), reference["logits"])
                self._add(name, "cosine of the last logits to fp32", 1, value, "cosine")

    def _cold_starts(self, names: Iterable[str]) -> None:
        for name in names:
            self._tell(f"{self._shape.name}: cold starts of {name}")
            self._cold(self._entrants[name])

    def _cold(self, entrant: Entrant) -> None:
        for state in ("warm", "empty"):
            phases: list[dict[str, float]] = []
            for _ in range(self._plan.cold_starts + (state == "warm")):
                if state == "empty":
                    _forget_pages(entrant.model)
                with self._start(entrant) as process:
                    phases.append(process.said["phases"])
            phases = phases[-self._plan.cold_starts :]  # the first warm one warms
            for phase in phases[0]:
                value = 1e3 * median_of(each[phase] for each in phases)
                self._add(entrant.name, f"cold start, {state} page cache: {phase}", 1, value, "ms")
            total = 1e3 * median_of(sum(each.values()) for each in phases)
            self._add(entrant.name, f"cold start, {state} page cache: all", 1, total, "ms")


def _forget_pages(model: Path) -> None:
    """Ask the operating system to drop the model's files from its page cache; the libraries stay."""
    for path in [model] if model.is_file() else model.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bandwidth_rows(rows: Sequence[Row], shape: Shape, bytes_per_second: float) -> Iterator[Row]:
    """What share of the memory's read rate our decoding at batch 1 comes to, by the weights that a step reads."""
    for row in rows:
        if (row.model, row.engine, row.metric, row.batch) != (shape.name, OURS, "decode", 1):
            continue
        family, _, grain = row.precision.partition("-")
        bits = {"fp32": 32.0, "int8": 8.0, "int4": 4.0}[family] + (32 / int(grain[1:]) if grain.startswith("b") else 0)
        share = 100 * row.value * shape.num_matrix_weights * bits / 8 / bytes_per_second
        target = bandwidth_target(shape.name, family)
        yield Row(shape.name, OURS, row.precision, "share of the memory's bandwidth", 1, share, "%", target=target)
