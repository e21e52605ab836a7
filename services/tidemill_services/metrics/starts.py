"""How long replicas of this host take to start, and what is ready to make the next start short."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Gauge, Histogram

_STEPS = ("launch", "connect", "process", "listen", "package", "engine", "graph", "warm", "total")
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class StartMetrics:
    """Cold starts by step; `tidemill model show` has the last one of each model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        seconds = Histogram(
            "tidemill_replica_start_seconds",
            "Time of each step of a replica's start on this host.",
            ["step"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._steps = {step: seconds.labels(step) for step in _STEPS}
        self._spares = Gauge("tidemill_spare_replicas", "Processes that wait to become a replica.", registry=registry)

    def observe(self, seconds: Mapping[str, float]) -> None:
        """A replica is ready; its steps took so long."""
        for step, taken in seconds.items():
            self._steps[step].observe(taken)

    def watch_spares(self, count: Callable[[], int]) -> None:
        """Show what this counts, from now on."""
        self._spares.set_function(count)
