"""The platform's time on SQLite: one clock that changes of the system time cannot move."""

import time
from collections.abc import Callable


class Clock:
    """Wall time at its making plus monotonic time since. Any thread may read it."""

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._monotonic_ns = monotonic_ns
        self._offset_ns = wall_ns() - monotonic_ns()

    def now_ms(self) -> int:
        """Milliseconds since 1970; never goes back."""
        return (self._offset_ns + self._monotonic_ns()) // 1_000_000

    def start_from(self, high_water_ms: int) -> None:
        """Go on from this mark if the clock is behind it: a process before us has written that time already."""
        behind_ns = high_water_ms * 1_000_000 - (self._offset_ns + self._monotonic_ns())
        self._offset_ns += max(0, behind_ns)
