"""Reads the pages that Prometheus reads."""

import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Series:
    """A name and its labels."""

    name: str
    labels: frozenset[tuple[str, str]]


def read_page(admin: str, path: str = "/metrics") -> str:
    """The text of a page of a server's administrator port."""
    with urllib.request.urlopen(f"http://{admin}{path}", timeout=60) as response:
        return response.read().decode()


def series_of(page: str) -> dict[Series, float]:
    """Every series of a page with its value."""
    return {
        Series(sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value_of(found: dict[Series, float], name: str, **labels: str) -> float:
    """The value of one series; 0 when it is not there."""
    return found.get(Series(name, frozenset(labels.items())), 0.0)


def values_of(found: dict[Series, float], label: str) -> set[str]:
    """Every value that a label has."""
    return set(_values(found, label))


def _values(found: dict[Series, float], label: str) -> Iterator[str]:
    for series in found:
        for name, value in series.labels:
            if name == label:
                yield value
