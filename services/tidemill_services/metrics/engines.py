"""What the replicas' engines do, as they say every second. Every process that is connected to them shows the same."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass
from operator import add, sub

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tidemill_services.engine_client import ReplicaStats

Ask = Callable[[], Mapping[str, Mapping[str, ReplicaStats]]]
"""The stats of the replicas that are connected, by model and replica."""


@dataclass(frozen=True, slots=True)
class _Done:
    """What only ever grows."""

    num_preemptions: int = 0
    num_decode_runs: int = 0
    num_decode_tokens: int = 0
    decode_seconds: float = 0.0
    num_prefill_runs: int = 0
    num_prefill_tokens: int = 0
    prefill_seconds: float = 0.0

    def __add__(self, other: "_Done") -> "_Done":
        return _Done(*map(add, astuple(self), astuple(other)))

    def __sub__(self, other: "_Done") -> "_Done":
        return _Done(*map(sub, astuple(self), astuple(other)))


_GAUGES: tuple[tuple[str, str, Callable[[ReplicaStats], float]], ...] = (
    ("budget_tokens", "Tokens that the KV caches may hold.", lambda stats: stats.token_budget),
    ("held_tokens", "Tokens in them that running generations hold.", lambda stats: stats.num_held_tokens),
    ("kept_tokens", "Tokens in them that are kept of ended ones.", lambda stats: stats.num_kept_tokens),
    ("resident_bytes", "Memory of the replicas' processes.", lambda stats: stats.resident_bytes),
)
_BY_PHASE: tuple[tuple[str, str, Callable[[_Done], float], Callable[[_Done], float]], ...] = (
    ("runs", "Runs of the models.", lambda done: done.num_decode_runs, lambda done: done.num_prefill_runs),
    ("run_tokens", "Tokens in these runs.", lambda done: done.num_decode_tokens, lambda done: done.num_prefill_tokens),
    ("run_seconds", "Time that these runs took.", lambda done: done.decode_seconds, lambda done: done.prefill_seconds),
)


class EngineMetrics(Collector):
    """By model. A replica that ends takes nothing of what was counted with it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ask: Ask = dict
        self._seen: dict[str, _Done] = {}  # by replica, of those that are connected
        self._done: dict[str, _Done] = {}  # by model, of all that ever were
        registry.register(self)

    def watch(self, ask: Ask) -> None:
        """Show what this tells, from now on."""
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        """The series of all models, now."""
        replicas = self._ask()
        self._count(replicas)
        for name, sentence, of in _GAUGES:
            gauge = GaugeMetricFamily(f"tidemill_engine_{name}", sentence, labels=["model"])
            for model, stats in replicas.items():
                gauge.add_metric([model], sum(map(of, stats.values())))
            yield gauge
        preemptions = CounterMetricFamily(
            "tidemill_engine_preemptions", "Generations that gave their slot up for a while.", labels=["model"]
        )
        for model, done in self._done.items():
            preemptions.add_metric([model], done.num_preemptions)
        yield preemptions
        for name, sentence, of_decode, of_prefill in _BY_PHASE:
            counter = CounterMetricFamily(f"tidemill_engine_{name}", sentence, labels=["model", "phase"])
            for model, done in self._done.items():
                counter.add_metric([model, "decode"], of_decode(done))
                counter.add_metric([model, "prefill"], of_prefill(done))
            yield counter

    def _count(self, replicas: Mapping[str, Mapping[str, ReplicaStats]]) -> None:
        """Add what each replica did since the last time."""
        seen: dict[str, _Done] = {}
        for model, stats_by_replica in replicas.items():
            total = self._done.get(model, _Done())
            for replica, stats in stats_by_replica.items():
                seen[replica] = _done_of(stats)
                total += seen[replica] - self._seen.get(replica, _Done())
            self._done[model] = total
        self._seen = seen


def _done_of(stats: ReplicaStats) -> _Done:
    return _Done(
        stats.num_preemptions,
        stats.num_decode_runs,
        stats.num_decode_tokens,
        stats.decode_seconds,
        stats.num_prefill_runs,
        stats.num_prefill_tokens,
        stats.prefill_seconds,
    )
