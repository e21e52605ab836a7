"""How long the steps of one replica's start took, as its keeper sees them."""

import time
from collections.abc import Iterable

from tidemill_services.engine_client import StartStep


class StartSteps:
    """Seconds by step. `launch` holds the replica's own `process` and `listen`; `total` is all of it."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self.begin()

    def begin(self) -> None:
        """The replica is launched now."""
        self._begun_at = self._since = time.monotonic()

    def note(self, step: str) -> None:
        """This step has ended, for the first time or again; only the first counts."""
        now = time.monotonic()
        if step not in self._seconds:
            self._seconds[step] = now - self._since
            self._since = now

    def at_ready(self, own: Iterable[tuple[StartStep, float]]) -> dict[str, float]:
        """All of them, with those that the replica told of, now that it is ready."""
        told = {step.value: seconds for step, seconds in own}
        return {**self._seconds, **told, "total": time.monotonic() - self._begun_at}
