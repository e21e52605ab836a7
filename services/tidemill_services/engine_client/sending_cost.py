"""What it costs this process to send one piece of an answer on, and so how long pieces are to gather for it."""

import os
import time
from collections.abc import Callable

WANTED_SHARE = 0.04  # of the machine's processors, for sending
MOST_PROCESSORS = 0.5  # however many there are: the event loop, which sends, has one
LOOK_SECONDS = 0.25
MIN_PIECES = 20  # within a look that counts
MIN_PIECES_OF_A_GENERATION = 8  # as before; with fewer, beginning and ending them is what costs
FIRST_COST_SECONDS = 0.000_2  # until it was measured
_WEIGHT_OF_A_LOOK = 0.5


class SendingCost:
    """The processor time of a piece, with all that is done for it: measured while pieces come, for all replicas."""

    def __init__(
        self, num_processors: int | None = None, processor_seconds: Callable[[], float] = time.process_time
    ) -> None:
        """`processor_seconds` is what this process has spent; by default, the processors are those it may use."""
        num_processors = num_processors or len(os.sched_getaffinity(0))
        self._wanted = min(WANTED_SHARE * num_processors, MOST_PROCESSORS)
        self._processor_seconds = processor_seconds
        self._seconds = FIRST_COST_SECONDS
        self._begin_look(0.0)

    @property
    def gather_microseconds(self) -> int:
        """For how long a running generation is to have pieces gather, so that sending takes the wanted share."""
        return round(1e6 * self._seconds / self._wanted)

    def generation_began(self) -> None:
        """Count one more."""
        self._num_generations += 1

    def pieces_came(self, num_pieces: int, now: float) -> None:
        """Count pieces that came just now."""
        self._num_pieces += num_pieces
        if now - self._since < LOOK_SECONDS:
            return
        if now - self._since < 2 * LOOK_SECONDS and self._num_pieces >= max(
            MIN_PIECES, MIN_PIECES_OF_A_GENERATION * self._num_generations
        ):
            cost = (self._processor_seconds() - self._spent) / self._num_pieces
            self._seconds += (cost - self._seconds) * _WEIGHT_OF_A_LOOK
        self._begin_look(now)

    def _begin_look(self, now: float) -> None:
        self._since, self._spent = now, self._processor_seconds()
        self._num_pieces = self._num_generations = 0
