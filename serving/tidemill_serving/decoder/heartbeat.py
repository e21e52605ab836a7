"""How others see whether the engine's thread is alive."""

import time
from collections.abc import Callable

PATIENCE_S = 5.0
LOADING_PATIENCE_S = 600.0  # a first load has no example; the disk may be slow


class Heartbeat:
    """Written by the engine's thread, read by any.

    Work of one kind may take 5 times its longest so far, and 5 seconds in any case.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._longest: dict[str, float] = {}
        # Of which kind, and since when; replaced as a whole: a reader never sees a half of it.
        self._work: tuple[str, float] | None = None

    def begin(self, kind: str) -> None:
        """The thread ends what it did and begins something of this kind."""
        now = self._clock()
        if self._work is not None:
            ended, since = self._work
            if now - since > self._longest.get(ended, 0.0):
                self._longest[ended] = now - since
        self._work = (kind, now)

    def expect(self, kind: str, seconds: float) -> None:
        """Take it that work of this kind takes so long, although none was seen yet. Called by the engine's thread."""
        self._longest[kind] = max(seconds, self._longest.get(kind, 0.0))

    def last_beat(self) -> float:
        """When the present work began, on this heart's clock; now, when nothing ever began."""
        work = self._work
        return self._clock() if work is None else work[1]

    def is_fresh(self) -> bool:
        """Whether the present work has not taken too long."""
        work = self._work
        if work is None:
            return True
        kind, since = work
        patience = LOADING_PATIENCE_S if kind == "load" else PATIENCE_S
        return self._clock() - since <= max(patience, 5 * self._longest.get(kind, 0.0))
