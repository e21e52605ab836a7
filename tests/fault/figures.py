"""The figures that strain tests measure: counts of ways to end, and times."""

import collections
import math
from collections.abc import Iterable


def counts(words: Iterable[str]) -> str:
    """How often each word came, the most frequent first."""
    return ", ".join(f"{number:,} {word}" for word, number in collections.Counter(words).most_common())


def times(seconds: Iterable[float]) -> str:
    """The median, the 95th percentile and the longest of some durations."""
    ordered = sorted(seconds)
    p50, p95 = ordered[len(ordered) // 2], ordered[math.ceil(len(ordered) * 0.95) - 1]
    return f"p50 {p50:.3f} s, p95 {p95:.3f} s, max {ordered[-1]:.3f} s, n {len(ordered):,}"
