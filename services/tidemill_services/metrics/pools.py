"""What waits for each model in this process, and where it can go."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tidemill_services.scaler.replicas import PoolCounts

Count = Callable[[], Mapping[str, PoolCounts]]

_GAUGES: tuple[tuple[str, str, Callable[[PoolCounts], float]], ...] = (
    ("tidemill_waiting_generations", "Generations that wait for a replica.", lambda count: count.num_waiting),
    ("tidemill_leased_places", "Places in replicas that are taken.", lambda count: count.num_leased),
    ("tidemill_ready_replicas", "Replicas that take generations.", lambda count: count.num_ready_replicas),
    ("tidemill_replica_slots", "Slots of these replicas.", lambda count: count.num_slots),
    ("tidemill_replica_slots_used", "Slots that they said are taken.", lambda count: count.num_slots_used),
    (
        "tidemill_buffered_bytes",
        "Text and token ids that came from replicas and wait for their readers.",
        lambda count: count.num_buffered_bytes,
    ),
)


class PoolMetrics(Collector):
    """Gauges that are counted when they are asked for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count: Count = dict
        registry.register(self)

    def watch(self, count: Count) -> None:
        """Show what this counts, from now on."""
        self._count = count

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges of all models, now."""
        families = [GaugeMetricFamily(name, sentence, labels=["model"]) for name, sentence, _ in _GAUGES]
        for model, count in self._count().items():
            for family, (_, _, of) in zip(families, _GAUGES, strict=True):
                family.add_metric([model], of(count))
        yield from families
