"""The line of those that wait for a slot, fair between accounts."""

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping

from tidemill_serving.decoder.sequence import Sequence


class WaitingLine:
    """Within an account the first comes first; between accounts the one with the fewest running ones does.

    Of accounts that run equally many, it is the one whose last turn is longest ago. An account that floods the engine
    so never holds up one that sends little for longer than until the next slot is free.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[bytes, deque[Sequence]] = OrderedDict()  # the one whose turn is longest ago first
        self._num_waiting = 0

    def __len__(self) -> int:
        return self._num_waiting

    def __iter__(self) -> Iterator[Sequence]:
        for line in self._lines.values():
            yield from line

    def push(self, sequence: Sequence) -> None:
        """Put a sequence at the end of its account's line."""
        self._lines.setdefault(sequence.request.account_salt, deque()).append(sequence)
        self._num_waiting += 1

    def first(self, num_running: Mapping[bytes, int]) -> Sequence:
        """Whose turn it is; `num_running` counts by account salt. Raises ValueError when nobody waits."""
        return self._lines[min(self._lines, key=lambda salt: num_running.get(salt, 0))][0]

    def take(self, sequence: Sequence) -> None:
        """Take one out that has its turn now: its account is the last of its equals then."""
        self.remove(sequence)
        if sequence.request.account_salt in self._lines:
            self._lines.move_to_end(sequence.request.account_salt)

    def remove(self, sequence: Sequence) -> None:
        """Take one out, wherever it stands. Raises ValueError when it is not here."""
        line = self._lines[sequence.request.account_salt]
        line.remove(sequence)
        self._num_waiting -= 1
        if not line:
            del self._lines[sequence.request.account_salt]
