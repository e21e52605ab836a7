"""Cold starts: a new process to its first token, by phase."""

import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.common.figures import Sample
from tests.bench.engine.turns import Turns

_PHASES = ("imports", "load", "first token", "all")


def measure_cold_starts(turns: Turns, names: Iterable[str], threads: int, slots: int) -> None:
    """With the model's files in the page cache and without; then again, of engines that keep something for it."""
    with TemporaryDirectory(prefix="tidemill-bench-") as folder:
        for are_kept in (False, True):
            keeps = {
                name: Path(folder) / str(number) if are_kept else None
                for number, name in enumerate(names)
                if turns.entrants[name].engine.keeps or not are_kept
            }
            for state in ("warm", "empty"):
                _measure_state(turns, keeps, state, threads, slots)


def _measure_state(turns: Turns, keeps: dict[str, Path | None], state: str, threads: int, slots: int) -> None:
    def start(name: str) -> Sample:
        entrant, keep = turns.entrants[name], keeps[name]
        if state == "empty":
            _forget_pages([entrant.model, *([keep] if keep else [])])
        with entrant.start(threads, slots, keep) as process:
            phases: dict[str, float] = process.said["phases"]
            if state == "warm" and keep:
                process.ask(do="wait until kept")
        milliseconds = {phase: 1e3 * seconds for phase, seconds in phases.items()}
        return {**milliseconds, "all": sum(milliseconds.values())}

    warming = 1 if state == "warm" else 0  # the first warm start warms, and keeps what is to be kept
    samples = turns.take({name: name for name in keeps}, start, turns.plan.cold_starts + warming)
    kept = ", with what was kept" if any(keeps.values()) else ""
    metrics = {phase: (f"cold start, {state} page cache{kept}: {phase}", "ms") for phase in _PHASES}
    turns.report({name: taken[warming:] for name, taken in samples.items()}, metrics, compared=["all"])


def _forget_pages(places: Iterable[Path]) -> None:
    """Ask the operating system to drop the files from its page cache; those of libraries stay."""
    for place in places:
        for path in [place] if place.is_file() else place.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())  # what is not written yet is not dropped
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
