"""The series of one control process. They hold only what this process did, and what it holds now."""

import asyncio

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, disable_created_metrics

from tidemill_services.metrics.calls import CallMetrics, HttpMetrics
from tidemill_services.metrics.engines import EngineMetrics
from tidemill_services.metrics.generations import GenerationMetrics
from tidemill_services.metrics.pools import PoolMetrics
from tidemill_services.metrics.sessions import SessionMetrics
from tidemill_services.metrics.starts import StartMetrics
from tidemill_services.metrics.store import StoreMetrics
from tidemill_services.scaler.replicas import Replicas


class Metrics:
    """One registry, and its series by subject. Only the event loop observes them."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each; Prometheus reads none
        self.registry = CollectorRegistry()
        self.calls = CallMetrics(self.registry)
        self.http = HttpMetrics(self.registry)
        self.generations = GenerationMetrics(self.registry)
        self.pools = PoolMetrics(self.registry)
        self.engines = EngineMetrics(self.registry)
        self.sessions = SessionMetrics(self.registry)
        self.starts = StartMetrics(self.registry)
        self.store = StoreMetrics(self.registry)
        tasks = Gauge("tidemill_asyncio_tasks", "Tasks of the event loop.", registry=self.registry)
        tasks.set_function(lambda: len(asyncio.all_tasks()))
        ProcessCollector(registry=self.registry)  # memory, CPU, file descriptors

    def watch_replicas(self, replicas: Replicas) -> None:
        """Show what waits and runs, from now on."""
        self.pools.watch(replicas.counts)
        self.engines.watch(replicas.engine_stats)
