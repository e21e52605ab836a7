"""The engine's policy: who is admitted, whose slot is which, who gives way. Pure; no tensors."""

import math
from bisect import insort
from collections import Counter, deque
from collections.abc import Iterable, Iterator

from tidemill_serving.decoder.devices.device import SavedCache
from tidemill_serving.decoder.sequence import Sequence, State
from tidemill_serving.decoder.slots import CopyIn, CopyOut, Kept, Move, Order, Slots
from tidemill_serving.decoder.waiting_line import WaitingLine
from tidemill_serving.engine import Load

HEADROOM = 64  # tokens, at least 1: what each running sequence should be able to make before anyone must give way


class Scheduler:
    """Holds every sequence in one of four places.

    Sequences that decode are always in the slots 0 to n-1, in the order of `decoding`, since one run covers a prefix
    of the slots. Of those that prefill the first one alone has a slot: what the others can reuse shows when their turn
    comes. There is at least one slot more than sequences may run, so that room for a move is always there.

    Every method that changes what slots hold returns the orders that must be carried out on the device, in order.
    """

    def __init__(
        self, *, num_slots: int, token_budget: int, num_cache_slots: int = 0, headroom: int = HEADROOM
    ) -> None:
        self.waiting = WaitingLine()
        self.preempted: list[Sequence] = []  # the oldest first; they come back before anyone new
        self.prefilling: deque[Sequence] = deque()
        self.decoding: list[Sequence] = []
        self.num_preemptions = 0
        self.num_joins_and_leaves = 0  # of `decoding`
        self.earliest_deadline = math.inf  # of all that are here, or were
        self._num_decoding_tokens = 0  # that those who decode have in the cache
        self.num_slots = num_slots
        self.token_budget = token_budget
        self._headroom = headroom
        self._num_admitted = 0
        self.slots = Slots(num_slots + 1 + num_cache_slots)

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.waiting
        yield from self.preempted
        yield from self.running

    @property
    def running(self) -> list[Sequence]:
        """Those that were admitted and did not give way."""
        return [*self.prefilling, *self.decoding]

    @property
    def has_work(self) -> bool:
        """Whether any sequence is here."""
        return bool(self.decoding or self.prefilling or self.waiting or self.preempted)

    @property
    def will_prefill(self) -> bool:
        """Whether the next step may compute a piece of a prompt."""
        return bool(self.waiting or self.preempted or self.prefilling)

    @property
    def num_held_tokens(self) -> int:
        """Tokens in the cache that running sequences hold, or will when their prompt is computed."""
        # Of one that decodes the prompt is in the cache.
        if not self.prefilling:
            return self._num_decoding_tokens
        return self._num_decoding_tokens + sum([sequence.num_held for sequence in self.prefilling])

    @property
    def num_kept_tokens(self) -> int:
        """Tokens in the cache that belong to no running sequence, and give way to one."""
        return self.slots.num_kept_tokens

    def load(self) -> Load:
        """How busy the engine is."""
        return Load(
            num_running=len(self.prefilling) + len(self.decoding),
            num_waiting=len(self.waiting) + len(self.preempted),
            num_slots=self.num_slots,
            num_free_tokens=self.token_budget - self.num_held_tokens,
        )

    def spare_slot(self) -> int:
        """A slot that holds nothing, after what was kept gave way."""
        return self.slots.empty_slot()

    def add(self, sequence: Sequence) -> None:
        """Put a sequence among the waiting ones."""
        self.waiting.push(sequence)
        if sequence.request.deadline is not None:
            self.earliest_deadline = min(self.earliest_deadline, sequence.request.deadline)

    def look_for_deadlines(self) -> None:
        """After some have passed: see which is the next."""
        deadlines = [sequence.request.deadline for sequence in self]
        self.earliest_deadline = min([each for each in deadlines if each is not None], default=math.inf)

    def admit(self) -> list[Order]:
        """Let those in who wait while slots and tokens last: first those that gave way, then by fair turns."""
        if not (self.waiting or self.preempted):
            return self._take_orders()  # nearly always
        while (sequence := self._next_to_admit()) is not None and self._has_place_for(sequence):
            if self.preempted:
                self.preempted.pop(0)
            else:
                self.waiting.take(sequence)
                self._num_admitted += 1
                sequence.admitted_as = self._num_admitted
            if sequence.num_prompt_left > 0:
                sequence.state = State.PREFILL
                self.prefilling.append(sequence)
            else:
                self._let_decode(sequence)
        return self._take_orders()

    def open_prefill(self) -> list[Order]:
        """Give the first of those that prefill a slot, with as much of its prompt in it as is known."""
        sequence = self.prefilling[0]
        if sequence.slot >= 0:
            return []
        if sequence.saved is not None:
            self._seat(sequence)
            self._bring_back(sequence, sequence.saved)
        else:
            self._seat_with_prefix(sequence)
        self._make_kept_fit(0)
        return self._take_orders()

    def promote(self, sequence: Sequence) -> list[Order]:
        """Let a sequence whose prompt is in the cache decode."""
        self.prefilling.remove(sequence)
        self._let_decode(sequence)
        return self._take_orders()

    def grow(self, sequences: Iterable[Sequence]) -> None:
        """A run put one more token of each of these, which decode, into the cache."""
        for sequence in sequences:
            sequence.num_cached += 1
            self._num_decoding_tokens += 1

    def make_room(self) -> list[Order]:
        """Before a decode run: see that each next token has its place. What is kept gives way, then the youngest do.

        The oldest never does, so that it comes to its end, and then the next one: whatever the budget, all are served.
        """
        num_coming = len(self.decoding)
        if self.num_held_tokens + self.slots.num_kept_tokens + num_coming <= self.token_budget:
            return self._take_orders()  # nearly always
        while self.num_held_tokens + len(self.decoding) > self.token_budget and len(self.running) > 1:
            self._preempt(max(self.running, key=_age))
        self._make_kept_fit(len(self.decoding))
        return self._take_orders()

    def remove(self, sequence: Sequence, *, keeps: bool = True) -> list[Order]:
        """Take a sequence out, wherever it is. With `keeps` what it computed stays, for prompts that begin alike."""
        sequence.saved = None
        if sequence.state is not State.WAITING:
            self._take_from_running(sequence, keeps=keeps)
        elif sequence.admitted_as:
            self.preempted.remove(sequence)
        else:
            self.waiting.remove(sequence)
        return self._take_orders()

    def _next_to_admit(self) -> Sequence | None:
        if self.preempted:
            return self.preempted[0]
        if not self.waiting:
            return None
        return self.waiting.first(Counter(sequence.request.account_salt for sequence in self.running))

    def _has_place_for(self, sequence: Sequence) -> bool:
        running = self.running
        wanted = sum(self._wish(other) for other in running) + self._wish(sequence)
        return len(running) < self.num_slots and wanted <= self.token_budget

    def _wish(self, sequence: Sequence) -> int:
        """What a sequence needs now and soon."""
        return min(sequence.num_held + self._headroom, sequence.num_reserved)

    def _seat(self, sequence: Sequence) -> None:
        """Where it will decode, as it looks now."""
        self.slots.clear_for(sequence, len(self.decoding))

    def _seat_with_prefix(self, sequence: Sequence) -> None:
        """In place where nothing is lost or nothing else is free; else as a copy."""
        match = self.slots.match(sequence)
        if match is None:
            self._seat(sequence)
            return
        tenant, num_exact = match.tenant, match.tenant.num_exact
        room = self.token_budget - self._num_seated - self.num_kept_tokens
        has_room_for_a_copy = self.slots.has_empty and len(sequence.prompt) <= room
        if isinstance(tenant, Kept) and (match.is_whole or not has_room_for_a_copy):
            self.slots.take_over(tenant, sequence)
        else:
            self._seat(sequence)
            self.slots.orders.append(Move(tenant.slot, sequence.slot, match.num_tokens))
        sequence.reuse(match.num_tokens, num_exact)

    @property
    def _num_seated(self) -> int:
        """Tokens that are held in slots by running sequences."""
        waiting = sum([sequence.num_held for sequence in self.prefilling if sequence.slot < 0])
        return self.num_held_tokens - waiting

    def _make_kept_fit(self, num_coming: int) -> None:
        self.slots.evict_to(self.token_budget - self._num_seated - num_coming)

    def _let_decode(self, sequence: Sequence) -> None:
        self.slots.clear_for(sequence, len(self.decoding))
        if sequence.saved is not None:
            self._bring_back(sequence, sequence.saved)
        self.decoding.append(sequence)
        self.num_joins_and_leaves += 1
        self._num_decoding_tokens += sequence.num_cached
        sequence.state = State.DECODE
        self._make_kept_fit(len(self.decoding))

    def _bring_back(self, sequence: Sequence, saved: SavedCache) -> None:
        sequence.saved = None
        self.slots.orders.append(CopyIn(sequence.slot, saved))

    def _preempt(self, sequence: Sequence) -> None:
        """Running to waiting: what it computed goes to host memory, so that nothing is computed twice."""
        if sequence.slot >= 0:
            self.num_preemptions += 1
            self.slots.orders.append(CopyOut(sequence, sequence.slot, sequence.num_cached))
        self._take_from_running(sequence, keeps=False)
        insort(self.preempted, sequence, key=_age)
        sequence.state = State.WAITING

    def _take_from_running(self, sequence: Sequence, *, keeps: bool) -> None:
        """Out of its queue and its slot; the last one that decodes takes over a slot among theirs."""
        slot = sequence.slot
        if slot >= 0:
            self.slots.leave(sequence, keeps=keeps)
        if sequence.state is State.PREFILL:
            self.prefilling.remove(sequence)
            return
        self.num_joins_and_leaves += 1
        self._num_decoding_tokens -= sequence.num_cached
        last = self.decoding.pop()
        if last is not sequence:
            self.decoding[slot] = last
            self.slots.clear_for(last, slot)

    def _take_orders(self) -> list[Order]:
        orders, self.slots.orders = self.slots.orders, []
        return orders


def _age(sequence: Sequence) -> int:
    return sequence.admitted_as
