"""Which slot of the device holds what: running sequences, and what ended ones left for prompts that begin alike."""

from collections.abc import Iterator
from dataclasses import dataclass

from tidemill_serving.decoder.devices.device import SavedCache
from tidemill_serving.decoder.prefix import BLOCK_LENGTH, Chain, num_shared_blocks
from tidemill_serving.decoder.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Move:
    """A slot's first `num_tokens` are copied over another slot's."""

    source: int
    target: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class CopyOut:
    """A sequence's cache goes from its slot to host memory."""

    sequence: Sequence
    source: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class CopyIn:
    """A sequence's cache comes back from host memory."""

    target: int
    saved: SavedCache


Order = Move | CopyOut | CopyIn


@dataclass(slots=True, eq=False)
class Kept:
    """What a sequence that has ended left in its slot."""

    slot: int
    chain: Chain
    num_exact: int  # tokens at its start that are what a prefill of them makes, bit by bit
    last_use: int

    @property
    def num_cached(self) -> int:
        """Tokens that are kept."""
        return len(self.chain) * BLOCK_LENGTH


@dataclass(frozen=True, slots=True)
class Match:
    """Where the longest known start of a prompt is."""

    tenant: Sequence | Kept
    num_tokens: int  # that may be taken from there
    is_whole: bool  # nothing else is kept there, so that to take it over costs nobody anything


class Slots:
    """Changes here are true on the device once `orders` are carried out there, in order."""

    def __init__(self, num_slots: int) -> None:
        self.orders: list[Order] = []
        self._tenants: list[Sequence | Kept | None] = [None] * num_slots
        self._num_uses = 0
        self.num_kept_tokens = 0  # of what ended sequences left

    def __iter__(self) -> Iterator[Sequence | Kept | None]:
        return iter(self._tenants)

    @property
    def kept(self) -> list[Kept]:
        """What ended sequences left."""
        return [tenant for tenant in self._tenants if isinstance(tenant, Kept)]

    @property
    def has_empty(self) -> bool:
        """Whether some slot holds nothing at all."""
        return None in self._tenants

    def empty_slot(self) -> int:
        """A slot that holds nothing; what is kept gives way. More slots than may run at once see to it."""
        if not self.has_empty:
            self._evict_one()
        return self._tenants.index(None)

    def seat(self, sequence: Sequence, slot: int) -> None:
        """Give a sequence a slot, which must be empty."""
        self._tenants[slot] = sequence
        sequence.slot = slot

    def clear_for(self, sequence: Sequence, target: int) -> None:
        """Bring a sequence into slot `target`; what was there goes elsewhere."""
        if sequence.slot == target:
            return
        tenant = self._tenants[target]
        if tenant is not None:
            slot = self._last_empty()
            if self._tenants[target] is tenant:  # else it gave way just now
                self._move(tenant, slot)
        if sequence.slot < 0:
            self.seat(sequence, target)
        else:
            self._move(sequence, target)

    def leave(self, sequence: Sequence, *, keeps: bool) -> None:
        """Take a sequence out of its slot; with `keeps` what it computed stays there."""
        slot, sequence.slot = sequence.slot, -1
        self._tenants[slot] = None
        chain = sequence.chain() if keeps else ()
        if not chain or any(len(chain) == num_shared_blocks(chain, other.chain) for other in self.kept):
            return
        for other in self.kept:
            if len(other.chain) == num_shared_blocks(chain, other.chain):
                self._tenants[other.slot] = None
        self._tenants[slot] = Kept(slot, chain, sequence.num_exact, self._next_use())
        self._count_kept()

    def match(self, sequence: Sequence) -> Match | None:
        """Where the longest start of its prompt is. At least its last two tokens stay to be computed.

        One token alone would be computed by another kernel, which rounds differently in quantised models.
        """
        most = len(sequence.prompt) - 2
        found = None
        for tenant in self._tenants:
            if tenant is None:
                continue
            chain = tenant.chain if isinstance(tenant, Kept) else tenant.prompt_chain_in_cache
            num_blocks = num_shared_blocks(chain, sequence.prompt_chain)
            num_tokens = min(num_blocks * BLOCK_LENGTH, most)
            if sequence.request.exact:
                num_tokens = min(num_tokens, tenant.num_exact)
            match = Match(tenant, num_tokens, isinstance(tenant, Kept) and num_blocks == len(chain))
            if num_tokens >= BLOCK_LENGTH - 2 and (found is None or _rank(match) > _rank(found)):
                found = match
        if found is not None and isinstance(found.tenant, Kept):
            found.tenant.last_use = self._next_use()
        return found

    def take_over(self, kept: Kept, sequence: Sequence) -> None:
        """Let a sequence go on in place from what is kept."""
        self.seat(sequence, kept.slot)
        self._count_kept()

    def evict_to(self, max_kept_tokens: int) -> None:
        """Let go of what was used longest ago until no more than this is kept."""
        while self.num_kept_tokens > max(0, max_kept_tokens):
            self._evict_one()

    def _evict_one(self) -> None:
        oldest = min(self.kept, key=lambda kept: kept.last_use)
        self._tenants[oldest.slot] = None
        self._count_kept()

    def _count_kept(self) -> None:
        """After what is kept has changed: it is asked for at each step, and changes seldom."""
        self.num_kept_tokens = sum(kept.num_cached for kept in self.kept)

    def _last_empty(self) -> int:
        """An empty slot far from those that decode."""
        self.empty_slot()
        return max(slot for slot, tenant in enumerate(self._tenants) if tenant is None)

    def _move(self, tenant: Sequence | Kept, target: int) -> None:
        self.orders.append(Move(tenant.slot, target, tenant.num_cached))
        self._tenants[tenant.slot] = None
        self._tenants[target] = tenant
        tenant.slot = target

    def _next_use(self) -> int:
        self._num_uses += 1
        return self._num_uses


def _rank(match: Match) -> tuple[int, bool]:
    return match.num_tokens, match.is_whole
