"""Every Prometheus series of a control process, in one list. They hold only what this process did."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
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

    def watch_pools(self, counts: Callable[[], Mapping[str, PoolCounts]]) -> None:
        """Show what waits for each model and where it can go, counted when it is asked for."""
        self.registry.register(_PoolCollector(counts))


class _PoolCollector(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, PoolCounts]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges of all models, now."""
        waiting = GaugeMetricFamily(
            "tidemill_waiting_generations", "Generations that wait for a replica.", labels=["model"]
        )
        leased = GaugeMetricFamily("tidemill_leased_places", "Places in replicas that are taken.", labels=["model"])
        ready = GaugeMetricFamily("tidemill_ready_replicas", "Replicas that take generations.", labels=["model"])
        for model, count in self._counts().items():
            waiting.add_metric([model], count.num_waiting)
            leased.add_metric([model], count.num_leased)
            ready.add_metric([model], count.num_ready_replicas)
        yield from (waiting, leased, ready)
