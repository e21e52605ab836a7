"""The figures that strain tests measure: counts of ways to end, and times."""

import collections
from collections.abc import Iterable


def counts(words: Iterable[str]) -> str:
    """How often each word came, the most frequent first."""
    return ", ".join(f"{number:,} {word}" for word, number in collections.Counter(words).most_common())


def times(seconds: Iterable[float]) -> str:
    """The median and the longest of some durations."""
    ordered = sorted(seconds)
    return f"p50 {ordered[len(ordered) // 2]:.3f} s, max {ordered[-1]:.3f} s, n {len(ordered):,}"
