"""A measured figure, what it is compared with, and where it must stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.common.figures import Target


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one engine. A ratio has its peer, and is above 1 where ours is ahead."""

    model: str
    engine: str
    precision: str
    metric: str  # its table, and what of it: "prefill", "arrivals: TTFT p50", "decode by llama.cpp q8_0"
    batch: int
    value: float
    unit: str
    peer: str = ""  # engine and precision
    target: Target | None = None

    @property
    def table(self) -> str:
        """The table that it stands in."""
        return self._measured.partition(": ")[0]

    @property
    def part(self) -> str:
        """What of the table's subject it is; "" where the batch says it."""
        return self._measured.partition(": ")[2]

    @property
    def subject(self) -> str:
        """Whose figure it is."""
        return f"{self.engine} {self.precision}"

    @property
    def is_missed(self) -> bool:
        """Whether it has a target and does not reach it."""
        return self.target is not None and not self.target.holds(self.value)

    @property
    def is_lost(self) -> bool:
        """Whether a peer is ahead."""
        return bool(self.peer) and self.value < 1

    @property
    def _measured(self) -> str:
        return self.metric.removesuffix(f" by {self.peer}")

    def record(self) -> dict[str, object]:
        """As JSON has it."""
        found = {name: getattr(self, name) for name in ("engine", "precision", "metric", "batch", "value", "unit")}
        return found | {
            "model": self.model,
            "peer": self.peer,
            "target": None if self.target is None else str(self.target),
            "met": None if self.target is None else not self.is_missed,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Row":
        """What `record` wrote."""
        names = ("model", "engine", "precision", "metric", "batch", "value", "unit", "peer")
        target = Target.read(record["target"]) if record["target"] else None
        return cls(**{name: record[name] for name in names}, target=target)


def losses_first(rows: Sequence[Row]) -> list[Row]:
    """Comparisons and targets: missed targets, then what a peer does better, then the rest; the worst of each first."""
    chosen = [row for row in rows if row.target or row.peer]
    return sorted(chosen, key=lambda row: (not row.is_missed, not row.is_lost, _standing(row)))


def _standing(row: Row) -> float:
    if row.target is None:
        return row.value
    return row.value / row.target.limit if row.target.is_floor else row.target.limit / row.value


def _floors(batches: Sequence[int], limits: Sequence[float]) -> dict[int, float]:
    return dict(zip(batches, limits, strict=True))


# (peer, family of precisions) → metric → batch → the least ratio of ours to the peer's
_RATIOS = {
    ("transformers", "fp32"): {"decode": _floors((1, 8, 32), (2.2, 2.5, 2.2)), "prefill": {1: 2.0}},
    ("onnxruntime-genai", "int8"): {"decode": _floors((1, 8, 32), (1.3, 1.6, 1.75)), "prefill": {1: 1.9}},
    ("llama.cpp", "int8"): {"decode": _floors((1, 8, 32), (1.0, 2.0, 1.7)), "prefill": {1: 1.9}},
    ("OpenVINO GenAI", "int8"): {"decode": _floors((1, 8, 32), (1.05, 1.0, 1.0)), "prefill": {1: 1.0}},
}
_BANDWIDTH = {"fp32": 90.0, "int8": 70.0, "int4": 50.0}  # percent


def ratio_target(model: str, peer: str, family: str, metric: str, batch: int) -> Target | None:
    """Where our ratio to a peer must stand; the table speaks of the larger model."""
    limit = _RATIOS.get((peer, family), {}).get(metric, {}).get(batch)
    return Target(limit, is_floor=True) if limit and model == "125m" else None


def bandwidth_target(model: str, family: str) -> Target | None:
    """Where our share of the memory's bandwidth at batch 1 must stand."""
    return Target(_BANDWIDTH[family], is_floor=True) if model == "125m" else None


OVERHEAD_TARGET = Target(0.2, is_floor=False)  # milliseconds
