"""What is counted of sessions: those that this process started and stopped, and those that are open in the store."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tidemill_services.domain.session import EndReason
from tidemill_services.domain.session_facts import SessionFact, SessionStarted
from tidemill_services.store.session_counts import OpenSessions


class SessionMetrics(Collector):
    """Sessions by model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._started = Counter(
            "tidemill_sessions_started", "Sessions that this process started.", ["model"], registry=registry
        )
        self._stopped = Counter(
            "tidemill_sessions_stopped",
            "Sessions that this process stopped, by why.",
            ["model", "reason"],
            registry=registry,
        )
        self._open: OpenSessions = {}
        registry.register(self)

    def count(self, fact: SessionFact) -> None:
        """It is true, and durable."""
        if isinstance(fact, SessionStarted):
            self._started.labels(fact.model).inc()
        else:
            self._stopped.labels(fact.model, fact.reason.value).inc()

    def show_open(self, counts: OpenSessions) -> None:
        """Show these until the next ones; their models' counters are there, at 0, from now on."""
        self._open = counts
        for model, _ in counts:
            self._started.labels(model)
            for reason in EndReason:
                self._stopped.labels(model, reason.value)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The open sessions of each model, as the store said last; none while it says nothing."""
        family = GaugeMetricFamily(
            "tidemill_open_sessions",
            "Sessions that are open, in the store: every process shows the same.",
            labels=["model", "state"],
        )
        for (model, state), number in self._open.items():
            family.add_metric([model, state.value], number)
        yield family
