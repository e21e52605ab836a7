"""What is counted at the doors: calls by method, HTTP requests by route."""

from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from tidemill_services.access import METHODS, PAGES
from tidemill_services.domain.errors import FaultError
from tidemill_services.metrics.tallies import Tallies, Tally, Times, TimesFamily

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1200)


class CallMetrics:
    """gRPC calls. Only methods of the contract come here: others are refused before."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = Tallies(
            CounterMetricFamily,
            "tidemill_requests",
            "Calls that ended, by method, gRPC code and reason.",
            ("method", "code", "reason"),
            registry,
        )
        self._seconds = TimesFamily(
            "tidemill_request_seconds", "Time from a call's arrival to its end.", ("method",), _SECONDS, registry
        )
        self._open = Tallies(
            GaugeMetricFamily, "tidemill_open_calls", "Calls that have not ended, by method.", ("method",), registry
        )
        for method in METHODS:  # from 0, so that the first increase is seen
            self._ended.of(method, "OK", "")
            self._ended.of(method, "INTERNAL", FaultError.reason)
        self._series: dict[str, _Series] = {}

    def begin(self, method: str) -> None:
        """A call has arrived."""
        self._of(method).open.value += 1

    def end(self, method: str, code: str, reason: str, seconds: float) -> None:
        """It is over; `reason` is the catalogue's, empty when it went well."""
        series = self._of(method)
        series.open.value -= 1
        series.seconds.add(seconds)
        if code == "OK":
            series.went_well.value += 1
        else:
            self._ended.of(method, code, reason).value += 1

    def _of(self, method: str) -> "_Series":
        found = self._series.get(method)
        if found is None:
            made = _Series(self._open.of(method), self._ended.of(method, "OK", ""), self._seconds.of(method))
            found = self._series[method] = made
        return found


class _Series(NamedTuple):
    """Those of one method that every call changes: looking them up costs more than that."""

    open: Tally
    went_well: Tally
    seconds: Times


class HttpMetrics:
    """Requests at the public HTTP port."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = Counter(
            "tidemill_http_requests",
            "HTTP requests that ended, by route, status (0: none was sent) and reason.",
            ["route", "status", "reason"],
            registry=registry,
        )
        self._seconds = Histogram(
            "tidemill_http_request_seconds",
            "Time from an HTTP request's arrival to its end.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._open = Gauge("tidemill_open_http_requests", "HTTP requests that have not ended.", registry=registry)
        for route in PAGES:
            self._ended.labels(route, "200", "")

    def begin(self) -> None:
        """A request has arrived."""
        self._open.inc()

    def end(self, route: str, status: int, reason: str, seconds: float) -> None:
        """It is over; `route` is the page's pattern, empty when there is no such page."""
        self._open.dec()
        self._ended.labels(route, str(status), reason).inc()
        self._seconds.labels(route).observe(seconds)
