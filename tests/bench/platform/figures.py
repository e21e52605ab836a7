"""A figure of the platform's bench, and which of them come first."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.common.figures import Target


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure."""

    bench: str  # whole, wire
    metric: str
    streams: int
    value: float
    unit: str
    subject: str = "platform"  # or what stands beside it
    target: Target | None = None

    @property
    def is_missed(self) -> bool:
        """Whether it has a target and does not reach it."""
        return self.target is not None and not self.target.holds(self.value)

    def record(self) -> dict[str, object]:
        """As JSON has it."""
        return {
            "bench": self.bench,
            "metric": self.metric,
            "streams": self.streams,
            "value": self.value,
            "unit": self.unit,
            "subject": self.subject,
            "target": None if self.target is None else str(self.target),
            "met": None if self.target is None else not self.is_missed,
        }


def losses_first(figures: Sequence[Figure]) -> list[Figure]:
    """What has a target: the missed ones before the others, otherwise as they came."""
    return sorted((figure for figure in figures if figure.target), key=lambda figure: not figure.is_missed)
