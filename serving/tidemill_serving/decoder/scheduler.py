"""The engine's policy: who is admitted, which slot is whose, how long a piece of a prompt may be. Pure; no tensors."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from tidemill_serving.decoder.sequence import Sequence, State
from tidemill_serving.engine import Load

SHORTEST_CHUNK = 16  # tokens; however tight the budget, a prompt moves on


@dataclass(frozen=True, slots=True)
class Move:
    """A slot's first `num_tokens` go to another slot."""

    source: int
    target: int
    num_tokens: int


class Scheduler:
    """Holds every sequence in one of three queues.

    Sequences that decode are always in the slots 0 to n-1, in the order of `decoding`, since one run covers a prefix
    of the slots. There is one slot more than sequences may run, so that room for a move is always there.
    """

    def __init__(self, *, num_slots: int, token_budget: int) -> None:
        self.waiting: deque[Sequence] = deque()
        self.prefilling: deque[Sequence] = deque()
        self.decoding: list[Sequence] = []
        self._num_slots = num_slots
        self._token_budget = token_budget
        self._num_reserved = 0
        self._free = set(range(num_slots + 1))

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.waiting
        yield from self.prefilling
        yield from self.decoding

    @property
    def has_work(self) -> bool:
        """Whether any sequence is here."""
        return bool(self.waiting or self.prefilling or self.decoding)

    @property
    def spare_slot(self) -> int:
        """A slot that no one uses; there always is one."""
        return min(self._free)

    def load(self) -> Load:
        """How busy the engine is."""
        return Load(
            num_running=len(self.prefilling) + len(self.decoding),
            num_waiting=len(self.waiting),
            num_slots=self._num_slots,
            num_free_tokens=self._token_budget - self._num_reserved,
        )

    def add(self, sequence: Sequence) -> None:
        """Put a sequence at the end of the waiting ones."""
        self.waiting.append(sequence)

    def admit(self) -> None:
        """Give slots to those who wait, first come, first served, while slots and token budget last."""
        while self.waiting and len(self.prefilling) + len(self.decoding) < self._num_slots:
            sequence = self.waiting[0]
            if self._num_reserved + sequence.num_reserved > self._token_budget:
                return
            self.waiting.popleft()
            self._num_reserved += sequence.num_reserved
            sequence.slot = self._take_free()
            sequence.state = State.PREFILL
            self.prefilling.append(sequence)

    def promote(self, sequence: Sequence) -> list[Move]:
        """Let a sequence whose prompt is in the cache decode; returns what must be moved first, in order."""
        moves = []
        target = len(self.decoding)
        if sequence.slot != target:
            if target not in self._free:
                occupant = next(other for other in self.prefilling if other.slot == target)
                moves.append(self._move(occupant, self._take_free()))
            self._free.remove(target)
            moves.append(self._move(sequence, target))
        self.prefilling.remove(sequence)
        self.decoding.append(sequence)
        sequence.state = State.DECODE
        return moves

    def remove(self, sequence: Sequence) -> list[Move]:
        """Take a sequence out, wherever it is; returns what must be moved to keep the decoding slots together."""
        if sequence.state is State.WAITING:
            self.waiting.remove(sequence)
            return []
        self._num_reserved -= sequence.num_reserved
        if sequence.state is State.PREFILL:
            self.prefilling.remove(sequence)
            self._free.add(sequence.slot)
            return []
        last = self.decoding.pop()
        if last is sequence:
            self._free.add(sequence.slot)
            return []
        self.decoding[sequence.slot] = last
        return [self._move(last, sequence.slot)]

    def _take_free(self) -> int:
        slot = min(self._free)
        self._free.remove(slot)
        return slot

    def _move(self, sequence: Sequence, target: int) -> Move:
        """Note the sequence's new slot; its old one is free."""
        move = Move(sequence.slot, target, sequence.num_cached)
        self._free.add(sequence.slot)
        sequence.slot = target
        return move


class ChunkPolicy:
    """How long a piece of a prompt may be, from what runs were seen to take.

    While others decode, one decode run and one piece of a prompt together should fit into the inter-token budget.
    """

    def __init__(self, *, inter_token_budget_s: float, max_chunk_length: int) -> None:
        self._budget = inter_token_budget_s
        self._max_length = max_chunk_length
        self._decode_s = 0.0
        self._prefill_s_per_token = 0.0

    def saw_decode(self, seconds: float) -> None:
        """A decode run took this long."""
        self._decode_s = _smoothed(self._decode_s, seconds)

    def saw_prefill(self, seconds: float, num_tokens: int) -> None:
        """A piece of a prompt took this long. Short ones say nothing: their fixed cost outweighs the tokens'."""
        if num_tokens >= SHORTEST_CHUNK:
            self._prefill_s_per_token = _smoothed(self._prefill_s_per_token, seconds / num_tokens)

    @property
    def longest_chunk_s(self) -> float:
        """How long the longest piece of a prompt takes, by what was seen of shorter ones; 0 when nothing was."""
        return self._max_length * self._prefill_s_per_token

    def length(self, num_left: int, *, others_decode: bool) -> int:
        """The length of the next piece of a prompt of which `num_left` tokens are left."""
        longest = self._max_length
        if others_decode and self._prefill_s_per_token > 0:
            fitting = int((self._budget - self._decode_s) / self._prefill_s_per_token)
            longest = min(max(fitting, SHORTEST_CHUNK), self._max_length)
        if num_left <= longest:
            return num_left
        # A last piece of a single token is computed by another kernel and may differ in quantised models.
        return longest - 1 if num_left - longest == 1 else longest


def _smoothed(before: float, now: float) -> float:
    return now if before == 0.0 else 0.8 * before + 0.2 * now
