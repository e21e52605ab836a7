"""The waits for slots in this process that are too long to be billed: nobody pays while they queue."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from tidemill_services.domain.session_clock import FREE_WAIT_MS

_FREE_SECONDS = FREE_WAIT_MS / 1000


class SlotWait:
    """One generation's wait, until `end`."""

    def __init__(self, grown_long: Callable[[float], None], end_long: Callable[[], None]) -> None:
        self._grown_long = grown_long
        self._end_long = end_long
        self._long_since = time.monotonic() + _FREE_SECONDS
        self._is_long = False
        self._timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(_FREE_SECONDS, self._grow_long)

    def end(self) -> None:
        """It has its slot, or went away; fine twice."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        if not self._is_long and time.monotonic() > self._long_since:  # the timer is late
            self._grow_long()
        if self._is_long:
            self._end_long()

    def _grow_long(self) -> None:
        self._is_long = True
        self._grown_long(self._long_since)


class SlotWaits:
    """All of them, by session. Times are on the clock of `time.monotonic`."""

    def __init__(self, changed: asyncio.Event) -> None:
        self._changed = changed
        self._num_long: defaultdict[str, int] = defaultdict(int)
        self._long_since: dict[str, float] = {}  # the first of those that last
        self._ended: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    @property
    def long_since(self) -> Mapping[str, float]:
        """The sessions of which a generation has waited for too long, and since when."""
        return dict(self._long_since)

    def take_ended(self) -> dict[str, list[tuple[float, float]]]:
        """The times in which a generation had waited for too long, of those that ended since the last taking."""
        ended, self._ended = self._ended, defaultdict(list)
        return dict(ended)

    def begin(self, session_id: str) -> SlotWait:
        """A generation of the session waits."""
        return SlotWait(lambda since: self._grown_long(session_id, since), lambda: self._end_long(session_id))

    def _grown_long(self, session_id: str, since: float) -> None:
        self._num_long[session_id] += 1
        if session_id not in self._long_since:
            self._long_since[session_id] = since
            self._changed.set()

    def _end_long(self, session_id: str) -> None:
        self._num_long[session_id] -= 1
        if not self._num_long[session_id]:
            del self._num_long[session_id]
            self._ended[session_id].append((self._long_since.pop(session_id), time.monotonic()))
            self._changed.set()
