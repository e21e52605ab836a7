"""How the store answers this process."""

import time
from types import TracebackType
from typing import Literal, Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tidemill_services.domain.errors import StoreUnavailableError

Kind = Literal["read", "write"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class StoreMetrics:
    """Units of work, from their handing in to their result; a write's is durable by then."""

    def __init__(self, registry: CollectorRegistry) -> None:
        seconds = Histogram(
            "tidemill_store_seconds",
            "Time from handing a unit of work to the store until its result.",
            ["kind"],
            buckets=_SECONDS,
            registry=registry,
        )
        open_units = Gauge("tidemill_store_open_units", "Units of work that wait or run.", ["kind"], registry=registry)
        failures = Counter(
            "tidemill_store_failures", "Units of work that the store did not take.", ["kind"], registry=registry
        )
        kinds: tuple[Kind, ...] = ("read", "write")
        self._series = {kind: (seconds.labels(kind), open_units.labels(kind), failures.labels(kind)) for kind in kinds}

    def unit(self, kind: Kind) -> "_Unit":
        """Measure the block as one unit of work."""
        return _Unit(*self._series[kind])


class _Unit:
    __slots__ = ("_began", "_failures", "_open_units", "_seconds")

    def __init__(self, seconds: Histogram, open_units: Gauge, failures: Counter) -> None:
        self._seconds = seconds
        self._open_units = open_units
        self._failures = failures
        self._began = 0.0

    def __enter__(self) -> Self:
        self._open_units.inc()
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open_units.dec()
        self._seconds.observe(time.monotonic() - self._began)
        if isinstance(error, StoreUnavailableError):
            self._failures.inc()
