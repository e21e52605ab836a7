"""What every measured process does: load once, then a turn for each line of its stdin. Knows no engine."""

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.engine.subjects.given import Given, read_given


@dataclass(frozen=True, slots=True)
class Job:
    """One generation: when it comes, in seconds from the turn's start, and what it asks for."""

    at: float
    prompt: list[int]
    max_tokens: int


class Subject(ABC):
    """One engine with its model loaded."""

    def __init__(self) -> None:
        self.extra: dict[str, float] = {}  # what it measured itself in the last run

    @abstractmethod
    def run(self, jobs: Sequence[Job]) -> list[list[float]]:
        """Answer all of them greedily; when each token came, in seconds from the turn's start."""

    @abstractmethod
    def greedy(self, prompt: list[int], num_tokens: int) -> list[int]:
        """The tokens of one greedy answer."""

    @abstractmethod
    def last_logits(self, prompt: list[int]) -> np.ndarray:
        """The logits after the prompt's last token."""

    def facts(self) -> dict[str, str]:
        """What it says about how it computes."""
        return {}

    def wait_until_kept(self) -> None:
        """Until what the next start takes is written; most have written it when they are loaded."""
        return


def one_at_a_time(jobs: Sequence[Job], generate: Callable[[list[list[int]], int], Iterable[None]]) -> list[list[float]]:
    """For engines whose batches nobody joins: jobs that come together and are alike in one batch, others in turn.

    `generate` yields once for each step, in which every prompt gets a token.
    """
    start = time.perf_counter()
    if len({(job.at, len(job.prompt), job.max_tokens) for job in jobs}) == 1:
        times = [time.perf_counter() - start for _ in generate([job.prompt for job in jobs], jobs[0].max_tokens)]
        return [times] * len(jobs)
    answered = []
    for job in sorted(jobs, key=lambda job: job.at):
        time.sleep(max(0.0, job.at - (time.perf_counter() - start)))
        answered.append([time.perf_counter() - start for _ in generate([job.prompt], job.max_tokens)])
    return answered


class Arrivals:
    """Hands out the jobs of a turn as their times come."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waiting = sorted(enumerate(jobs), key=lambda entry: -entry[1].at)
        self._start = time.perf_counter()
        self.times: list[list[float]] = [[] for _ in jobs]
        self.token_ids: list[list[int]] = [[] for _ in jobs]

    def due(self) -> Iterator[tuple[int, Job]]:
        """Those that have come since the last call."""
        while self._waiting and self._waiting[-1][1].at <= self.now():
            yield self._waiting.pop()

    def now(self) -> float:
        """Seconds from the turn's start."""
        return time.perf_counter() - self._start

    def note(self, number: int, token_id: int) -> None:
        """A job got a token."""
        self.times[number].append(self.now())
        self.token_ids[number].append(token_id)

    def wait(self) -> bool:
        """Sleep until the next job comes; False when none will."""
        if self._waiting:
            time.sleep(max(0.0, self._waiting[-1][1].at - self.now()))
        return bool(self._waiting)


def serve(open_subject: Callable[[Given], Subject], packages: Sequence[str]) -> None:
    """The process's main, once all is imported: tells its phases and versions first."""
    given = read_given()
    started = float(os.environ.get("TIDEMILL_BENCH_STARTED", time.time()))
    marks = [started, time.time()]
    subject = open_subject(given)
    marks.append(time.time())
    subject.run([Job(0.0, list(range(300, 316)), 1)])
    marks.append(time.time())
    phases = dict(zip(("imports", "load", "first token"), np.diff(marks).tolist(), strict=True))
    versions = {name: version(name) for name in packages}
    answer({"phases": phases, "versions": versions, "facts": subject.facts()})
    for line in sys.stdin:
        answer(_turn(subject, json.loads(line)))


def _turn(subject: Subject, asked: dict[str, Any]) -> dict[str, Any]:
    match asked["do"]:
        case "run":
            times = subject.run([Job(**job) for job in asked["jobs"]])
            return {"times": times, **subject.extra}
        case "greedy":
            return {"token_ids": subject.greedy(asked["prompt"], asked["num_tokens"])}
        case "logits":
            np.save(asked["to"], subject.last_logits(asked["prompt"]))
            return {}
        case "memory":
            return {"resident": _kibibytes("VmRSS") * 1024, "peak": _kibibytes("VmHWM") * 1024}
        case "wait until kept":
            subject.wait_until_kept()
            return {}
    raise ValueError(f"unknown request {asked}")


def _kibibytes(name: str) -> int:
    """Of this program alone: what getrusage calls a peak holds its parent's, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0])


def answer(content: dict[str, Any]) -> None:
    """One line for the parent."""
    print(json.dumps(content), flush=True)
