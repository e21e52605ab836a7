"""What is shown of sessions. They are the store's, so every process shows the same."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tidemill_services.store.session_counts import OpenSessions


class SessionMetrics(Collector):
    """How many sessions are open, as the store said last; nothing while it says nothing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._open: OpenSessions = {}
        registry.register(self)

    def show_open(self, counts: OpenSessions) -> None:
        """Show these from now on."""
        self._open = counts

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The open sessions of each model."""
        family = GaugeMetricFamily(
            "tidemill_open_sessions",
            "Sessions that are open, in the store: every process shows the same.",
            labels=["model", "state"],
        )
        for (model, state), number in self._open.items():
            family.add_metric([model, state.value], number)
        yield family
