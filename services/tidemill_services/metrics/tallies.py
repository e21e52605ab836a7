"""Series that the event loop alone changes, so that no lock is taken and a change is an addition.

Each call changes twenty of them. prometheus_client's own take a lock for each change, and look at one bucket after the
other.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Tally:
    """How much of something there was, or is."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Times:
    """How many times of something were how long."""

    __slots__ = ("_bounds", "_counts", "_seconds")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the longest times of the buckets, in seconds; what is longer has one more."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._seconds = 0.0

    def add(self, seconds: float, number: int = 1) -> None:
        """So many took this long together: each its share of it."""
        self._counts[bisect_left(self._bounds, seconds / number)] += number
        self._seconds += seconds

    def show(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Add the series with these labels."""
        bounds = (*map(floatToGoString, self._bounds), "+Inf")
        family.add_metric(labels, list(zip(bounds, accumulate(self._counts), strict=True)), self._seconds)


class Tallies(Collector):
    """Counters, or gauges, of one name, by their labels."""

    def __init__(
        self,
        kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
        name: str,
        sentence: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
    ) -> None:
        self._kind = kind
        self._name, self._sentence, self._labels = name, sentence, labels
        self._tallies: dict[tuple[str, ...], Tally] = {}
        registry.register(self)

    def of(self, *labels: str) -> Tally:
        """The one with these labels, which is shown, at 0, from now on."""
        return self._tallies.setdefault(labels, Tally())

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """What there is now."""
        family = self._kind(self._name, self._sentence, labels=self._labels)
        for labels, tally in self._tallies.items():
            family.add_metric(labels, tally.value)
        yield family


class TimesFamily(Collector):
    """Histograms of one name, by their labels."""

    def __init__(
        self, name: str, sentence: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._sentence, self._labels = name, sentence, labels
        self._bounds = bounds
        self._times: dict[tuple[str, ...], Times] = {}
        registry.register(self)

    def of(self, *labels: str) -> Times:
        """The one with these labels, which is shown, empty, from now on."""
        return self._times.setdefault(labels, Times(self._bounds))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What there is now."""
        family = HistogramMetricFamily(self._name, self._sentence, labels=self._labels)
        for labels, times in self._times.items():
            times.show(family, labels)
        yield family
