"""The load that every subject of a turn gets alike, and what the one who made it saw."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tests.bench.common.figures import quantile

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Load:
    """So many streams at once, each with one generation after the other."""

    streams: int
    max_tokens: int
    rounds: int = 1  # generations of each stream
    prompt_letters: int = 64
    seed: int = 0
    mean_pause_s: float = 0.0  # of a stream before each of its generations
    whole: bool = False  # each answer is asked for in one message

    def prompts(self) -> list[str]:
        """One for each stream, all different, the same in every turn of a seed."""
        random = np.random.default_rng((self.streams, self.seed))
        return ["".join(random.choice(list(_LETTERS), self.prompt_letters)) for _ in range(self.streams)]

    def pauses(self) -> list[list[float]]:
        """For each stream, one before each of its generations, in seconds; the same in every turn of a seed."""
        random = np.random.default_rng((self.rounds, self.seed))
        pauses: list[list[float]] = random.uniform(0, 2 * self.mean_pause_s, (self.streams, self.rounds)).tolist()
        return pauses

    def as_json(self) -> dict[str, Any]:
        """For a child."""
        return asdict(self)


@dataclass(slots=True)
class Trace:
    """When one generation's tokens came, on the clock of `time.perf_counter`."""

    began: float
    first: float = 0.0
    last: float = 0.0
    gaps: list[float] = field(default_factory=list)
    num_tokens: int = 0

    def saw(self, num_tokens: int, now: float) -> None:
        """Some tokens came."""
        if self.num_tokens:
            self.gaps.append(now - self.last)
        else:
            self.first = now
        self.last = now
        self.num_tokens += num_tokens


def summary(traces: Sequence[Trace], cpu_seconds: float) -> dict[str, float]:
    """A turn's figures: tokens, tokens/s, and latencies in milliseconds. A gap is between two arrivals of a stream."""
    seconds = max(trace.last for trace in traces) - min(trace.began for trace in traces)
    num_tokens = sum(trace.num_tokens for trace in traces)
    firsts = [1e3 * (trace.first - trace.began) for trace in traces]
    gaps = [1e3 * gap for trace in traces for gap in trace.gaps]
    return {
        "seconds": seconds,
        "tokens": num_tokens,
        "generations": len(traces),
        "tokens per message": num_tokens / max(1, len(gaps) + len(traces)),
        "throughput": num_tokens / seconds,
        "TTFT p50": quantile(firsts, 0.5),
        "TTFT p99": quantile(firsts, 0.99),
        "ITL p50": quantile(gaps, 0.5),
        "ITL p99": quantile(gaps, 0.99),
        "cpu": cpu_seconds,
    }


def requests(lines: Iterator[str]) -> Iterator[Load]:
    """The loads that a parent asks for."""
    for line in lines:
        yield Load(**json.loads(line))
