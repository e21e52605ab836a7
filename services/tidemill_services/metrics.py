"""Every Prometheus series of a control process, in one list. They hold only what this process did."""

import asyncio
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tidemill_services.scaler.replicas import PoolCounts

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """One registry and its series. Label values come from the contract and the registered models: both are bounded."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tidemill_requests",
            "Calls that ended, by method, gRPC code and reason.",
            ["method", "code", "reason"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "tidemill_request_seconds",
            "Time from a call's arrival to its end.",
            ["method"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.open_calls = Gauge(
            "tidemill_open_calls", "Calls that have not ended, by method.", ["method"], registry=self.registry
        )
        self.open_http_requests = Gauge(
            "tidemill_open_http_requests", "HTTP requests that have not ended.", registry=self.registry
        )
        self.http_requests = Counter(
            "tidemill_http_requests",
            "HTTP requests that ended, by route, status (0: none was sent) and reason.",
            ["route", "status", "reason"],
            registry=self.registry,
        )
        self.http_request_seconds = Histogram(
            "tidemill_http_request_seconds",
            "Time from an HTTP request's arrival to its end.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.generations = Counter(
            "tidemill_generations",
            "Generations that ended, by model and finish reason.",
            ["model", "finish_reason"],
            registry=self.registry,
        )
        self.running_generations = Gauge(
            "tidemill_running_generations",
            "Generations that wait or run.",
            ["model"],
            registry=self.registry,
        )
        self.resumable_generations = Gauge(
            "tidemill_resumable_generations",
            "Generations with a request id that wait, run, or ended within the last minute.",
            registry=self.registry,
        )
        self.attached_calls = Counter(
            "tidemill_attached_calls",
            "Calls that attached to a generation that another call had begun.",
            registry=self.registry,
        )
        self.prompt_tokens = Counter("tidemill_prompt_tokens", "Tokens of prompts.", ["model"], registry=self.registry)
        self.completion_tokens = Counter(
            "tidemill_completion_tokens", "Tokens that models made.", ["model"], registry=self.registry
        )
        self.queue_seconds = Histogram(
            "tidemill_queue_seconds",
            "Time from a generation's arrival until a replica took it, cold start included.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.time_to_first_token_seconds = Histogram(
            "tidemill_time_to_first_token_seconds",
            "Time from a generation's arrival to its first text.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.asyncio_tasks = Gauge("tidemill_asyncio_tasks", "Tasks of the event loop.", registry=self.registry)
        self.asyncio_tasks.set_function(lambda: len(asyncio.all_tasks()))
        ProcessCollector(registry=self.registry)  # memory, CPU, file descriptors

    def watch_pools(self, counts: Callable[[], Mapping[str, PoolCounts]]) -> None:
        """Show what waits for each model and where it can go, counted when it is asked for."""
        self.registry.register(_PoolCollector(counts))


_POOL_GAUGES: tuple[tuple[str, str, Callable[[PoolCounts], float]], ...] = (
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


class _PoolCollector(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, PoolCounts]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges of all models, now."""
        families = [GaugeMetricFamily(name, sentence, labels=["model"]) for name, sentence, _ in _POOL_GAUGES]
        for model, count in self._counts().items():
            for family, (_, _, of) in zip(families, _POOL_GAUGES, strict=True):
                family.add_metric([model], of(count))
        yield from families
