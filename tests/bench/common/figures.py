"""What becomes of measurements: quantiles, medians over turns, ratios of turns that stood side by side."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Sample = Mapping[str, float]  # metric → value, of one turn


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all reach not above; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def in_turns(num_turns: int, subjects: Mapping[str, Callable[[], Sample]]) -> dict[str, list[Sample]]:
    """Measure the subjects one after the other, and all of them again: A B A B ..., so that drift meets them alike."""
    samples: dict[str, list[Sample]] = {name: [] for name in subjects}
    for _ in range(num_turns):
        for name, measure in subjects.items():
            samples[name].append(measure())
    return samples


def median(samples: Sequence[Sample], metric: str) -> float:
    """Of all turns."""
    return statistics.median(sample[metric] for sample in samples)


def ratio(of: Sequence[Sample], to: Sequence[Sample], metric: str) -> float:
    """The median of each turn's ratio to its neighbour: what changes from turn to turn falls out."""
    return statistics.median(a[metric] / b[metric] for a, b in zip(of, to, strict=True))


def difference(of: Sequence[Sample], to: Sequence[Sample], metric: str) -> float:
    """The median of each turn's distance from its neighbour."""
    return statistics.median(a[metric] - b[metric] for a, b in zip(of, to, strict=True))


@dataclass(frozen=True, slots=True)
class Target:
    """Where a figure must stand."""

    limit: float
    is_floor: bool  # else a ceiling

    @classmethod
    def read(cls, text: str) -> "Target":
        """As it is written."""
        sign, limit = text.split()
        return cls(float(limit), is_floor=sign == "≥")

    def holds(self, value: float) -> bool:
        """Whether it does."""
        return value >= self.limit if self.is_floor else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.is_floor else '≤'} {self.limit:g}"
