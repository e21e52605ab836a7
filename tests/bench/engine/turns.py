"""Turns of all engines, and the rows that come of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.bench.common.figures import Sample, in_turns, median, ratio
from tests.bench.engine.entrants import Entrant
from tests.bench.engine.plan import Plan
from tests.bench.engine.rows import Row, ratio_target
from tests.bench.models.shapes import Shape

_MORE_IS_BETTER = {"tokens/s": True, "times": True, "ms": False, "MiB": False}


@dataclass(slots=True)
class Measured:
    """What a run found."""

    rows: list[Row] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)  # versions, and what engines say about themselves
    absent: list[str] = field(default_factory=list)

    def note_start(self, name: str, said: Mapping[str, Any]) -> None:
        """What a process said when it was loaded."""
        self.facts |= said["versions"]
        self.facts |= {f"{name}, {what}": text for what, text in said["facts"].items()}


class Turns:
    """One model in one family of precisions."""

    def __init__(self, plan: Plan, shape: Shape, family: str, entrants: Mapping[str, Entrant], found: Measured) -> None:
        self.plan, self.shape, self.entrants, self.found = plan, shape, entrants, found
        self._family = family
        self._dead: set[str] = set()

    def alive(self, names: Iterable[str]) -> list[str]:
        """Those of them that have not failed yet."""
        return [name for name in names if name not in self._dead]

    def add(self, name: str, metric: str, batch: int, value: float, unit: str, **more: Any) -> None:
        """A figure of one entrant."""
        engine, precision = self.entrants[name].engine.name, self.entrants[name].precision
        self.found.rows.append(Row(self.shape.name, engine, precision, metric, batch, value, unit, **more))

    def take(
        self, subjects: Mapping[str, Any], turn: Callable[[Any], Sample], num_turns: int | None = None
    ) -> dict[str, list[Sample]]:
        """Samples of all who lived through all turns; a peer that did not is told as absent, and asked no more."""

        def tried(name: str, subject: Any) -> Sample:
            try:
                return {} if name in self._dead else turn(subject)
            except (AssertionError, BrokenPipeError) as error:
                if self.entrants[name].is_ours:
                    raise
                self._dead.add(name)
                self.found.absent.append(f"{name} of {self.shape.name}: it failed: {error!r}")
                return {}

        takers = {name: partial(tried, name, subjects[name]) for name in self.alive(subjects)}
        samples = in_turns(num_turns or self.plan.turns, takers)
        return {name: samples[name] for name in self.alive(samples)}

    def report(
        self,
        samples: Mapping[str, list[Sample]],
        metrics: Mapping[str, tuple[str, str]],
        batch: int = 1,
        compared: Iterable[str] | None = None,
    ) -> None:
        """Medians of all and the ratios of ours to its peers; `metrics`: key of a sample → what it is called, unit."""
        for key, (metric, unit) in metrics.items():
            for name, taken in samples.items():
                self.add(name, metric, batch, median(taken, key), unit)
            if compared is None or key in compared:
                self._compare(samples, key, metric, unit, batch)

    def _compare(self, samples: Mapping[str, list[Sample]], key: str, metric: str, unit: str, batch: int) -> None:
        for name, taken in samples.items():
            for other, others in samples.items():
                if not self.entrants[name].meets(self.entrants[other]):
                    continue
                pair = (taken, others) if _MORE_IS_BETTER[unit] else (others, taken)
                target = ratio_target(self.shape.name, self.entrants[other].engine.name, self._family, metric, batch)
                value = ratio(*pair, key)
                self.add(name, f"{metric} by {other}", batch, value, "ratio", peer=other, target=target)
