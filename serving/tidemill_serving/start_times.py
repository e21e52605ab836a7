"""How long each step of a replica's start took."""

import time
from collections.abc import Callable
from enum import Enum

from tidemill_serving.engine import EngineListener, Phase


class StartStep(Enum):
    """The steps, in their order. What a spare did before it was needed is in none of them."""

    PROCESS = "process"  # from the process's start, or a spare's orders, until it knows what it is to serve: imports
    LISTEN = "listen"  # opening the port
    PACKAGE = "package"  # checking the package
    ENGINE = "engine"  # the engine's own imports; the tokenizer is read beside them and the graph
    GRAPH = "graph"  # loading the graph and its weights
    WARM = "warm"  # the first runs, and what is left of reading the tokenizer


_STEPS = {Phase.LOADING: StartStep.GRAPH, Phase.WARMING: StartStep.WARM}


class StartTimes:
    """Seconds of each step that has ended. One thread after the other enters a step; any may read."""

    def __init__(self) -> None:
        self._seconds: dict[StartStep, float] = {}
        self._step: StartStep | None = None
        self._since = 0.0

    def note(self, step: StartStep, seconds: float) -> None:
        """A step took so long."""
        self._seconds = {**self._seconds, step: seconds}

    def enter(self, step: StartStep | None) -> None:
        """The step before has ended, and this one begins; None: the replica is ready. Repeats are fine."""
        if step is self._step:
            return
        now = time.monotonic()
        if self._step is not None:
            self.note(self._step, now - self._since)
        self._step, self._since = step, now

    def seconds(self) -> dict[StartStep, float]:
        """What is known so far."""
        return self._seconds


class StartWatch:
    """An engine's listener that notes the engine's steps on their way to the real one."""

    def __init__(self, listener: EngineListener, times: StartTimes, on_ready: Callable[[], None]) -> None:
        self._listener = listener
        self._times = times
        self._on_ready = on_ready
        self._is_started = False
        self.on_step = listener.on_step

    def on_phase(self, phase: Phase, progress: float, detail: str) -> None:
        """See EngineListener."""
        if not self._is_started:
            self._times.enter(_STEPS.get(phase))
        self._listener.on_phase(phase, progress, detail)
        if phase is Phase.READY and not self._is_started:
            self._is_started = True
            self._on_ready()
