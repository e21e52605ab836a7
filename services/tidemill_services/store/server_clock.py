"""The platform's time on Postgres: the server's clock without its jumps.

All processes follow one clock, the server's, as long as it runs evenly. Each compares it with its own monotonic clock,
and what the server's clock was set by is left out from then on. So every process leaves out the same, and none has to
tell another.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

JUMP_MS = 500  # what the server's clock may be off by before it was set

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """The server's time, which it told at some moment between our asking and our hearing it."""

    server_ms: int
    asked_ms: int  # on our monotonic clock
    heard_ms: int


class ServerClock:
    """Makes the platform's time of the server's. Any thread may use it."""

    def __init__(self, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.newest_ms = 0  # the latest time that was given out
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._offset_ms = 0  # from the server's time to the platform's
        self._known: Reading | None = None  # what the next one is held against

    @property
    def was_set(self) -> bool:
        """Whether the server's clock is not the platform's, so that processes may differ by some milliseconds."""
        return self._offset_ms != 0

    def now_ms(self, ask: Callable[[], tuple[int, int]]) -> int:
        """Return the platform's time; never behind the mark. `ask` asks the server for its time and for the mark."""
        asked_ms = self._monotonic_ms()
        server_ms, mark_ms = ask()
        reading = Reading(server_ms, asked_ms, self._monotonic_ms())
        with self._lock:
            self._leave_out_jump(reading)
            if mark_ms > server_ms + self._offset_ms + JUMP_MS:  # we slept, or the clock was set while nobody ran
                self._offset_ms = mark_ms - server_ms
            self.newest_ms = max(self.newest_ms, mark_ms, server_ms + self._offset_ms)
            return self.newest_ms

    def join(self, server_ms: int, mark_ms: int) -> None:
        """Go on from the mark of processes that run now, whatever the server's clock says."""
        with self._lock:
            self._offset_ms = mark_ms - server_ms

    def _leave_out_jump(self, reading: Reading) -> None:
        known = self._known
        if known is not None:
            since_ms = reading.server_ms - known.server_ms
            jump_ms = max(0, since_ms - (reading.heard_ms - known.asked_ms)) or min(
                0, since_ms - (reading.asked_ms - known.heard_ms)
            )
            if abs(jump_ms) > JUMP_MS:
                logger.warning("the database's clock was set by %+d ms: the platform's time goes on without", jump_ms)
                self._offset_ms -= jump_ms
                known = None
        if known is None or reading.heard_ms - reading.asked_ms <= JUMP_MS:
            self._known = reading

    def _monotonic_ms(self) -> int:
        return self._monotonic_ns() // 1_000_000
