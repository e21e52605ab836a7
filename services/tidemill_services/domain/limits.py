"""How much an account or a key may ask for, and the slices of it that processes hold.

A process leases a *slice* of a limit from the store, spends it in memory, and settles now and then. Whatever the store
has leased, to all processes together, never exceeds the limit; a slice that was not renewed falls back when its time is
over. Three kinds are held so: requests and tokens in a minute of the clock, which are used up, and generations at a
time, which are given back.
"""

import enum
import math
from dataclasses import dataclass, fields

from tidemill_services.domain.errors import FieldInvalidError

MAX_LIMIT = 1_000_000
MAX_TOKENS_PER_MINUTE = 1_000_000_000
MINUTE_MS = 60_000
PLACES_LEASE_MS = 10_000  # places of a process that gave no sign of life for so long fall back
SLICES_OF_A_LIMIT = 8  # so that several processes find something left


@dataclass(frozen=True, slots=True)
class UsageLimits:
    """How much may be asked for; None: not limited."""

    requests_per_minute: int | None = None
    concurrent_generations: int | None = None
    concurrent_sessions: int | None = None
    tokens_per_minute: int | None = None

    def facts(self) -> dict[str, object]:
        """The limits by the names of the contract."""
        return {f"limits.{each.name}": getattr(self, each.name) for each in fields(self)}

    def of(self, kind: "LimitKind") -> int | None:
        """The limit of a kind that is held in slices."""
        if kind is LimitKind.REQUESTS:
            return self.requests_per_minute
        return self.tokens_per_minute if kind is LimitKind.TOKENS else self.concurrent_generations

    def check(self, path: str) -> None:
        """Raise FieldInvalidError for what no limit may be; `path` is where they lie in the request."""
        for each in fields(self):
            value = getattr(self, each.name)
            most = MAX_TOKENS_PER_MINUTE if each.name == "tokens_per_minute" else MAX_LIMIT
            if value is not None and not 1 <= value <= most:
                name = f"{path}.{each.name}"
                raise FieldInvalidError(f"{name} must be 1 to {most:,}, got {value:,}.", field=name)


class LimitKind(enum.StrEnum):
    """What is held in slices. Open sessions are not: they are rows, and counted in the transaction that adds one."""

    REQUESTS = "REQUESTS"
    TOKENS = "TOKENS"
    GENERATIONS = "GENERATIONS"

    @property
    def is_used_up(self) -> bool:
        """Whether what was taken stays so until its minute is over; else it is given back."""
        return self is not LimitKind.GENERATIONS


def slice_size(limit: int) -> int:
    """How much a process leases at a time."""
    return math.ceil(limit / SLICES_OF_A_LIMIT)


@dataclass(frozen=True, slots=True)
class SliceAsk:
    """What a process wants to hold of one limit, in all; less than before gives the rest back."""

    subject: str  # accounts/{account} or keys/{key}
    kind: LimitKind
    limit: int
    held: int  # what it goes on with, whatever the answer
    spent: int  # of it
    wanted: int
    period: int  # until when it holds that, by the store's time; of what is used up it says which minute


@dataclass(frozen=True, slots=True)
class SliceLease:
    """What the process holds from now on, and until when. Milliseconds are of the store's clock."""

    held: int
    expire_ms: int
    now_ms: int


def answer(ask: SliceAsk, *, held_by_others: int, is_live: bool, now_ms: int) -> SliceLease:
    """Decide what a process holds after it asked; what it may have spent already is not taken away.

    `held_by_others` counts the live leases of the others; `is_live` says whether the process's own last one is.
    """
    if ask.kind.is_used_up:
        expire_ms = (now_ms // MINUTE_MS + 1) * MINUTE_MS
        kept = ask.held if ask.period == expire_ms else 0
    else:  # generations that run do so also when their process's lease has lapsed
        expire_ms = now_ms + PLACES_LEASE_MS
        kept = ask.held if is_live else ask.spent
    return SliceLease(max(kept, min(ask.wanted, ask.limit - held_by_others)), expire_ms, now_ms)


@dataclass(slots=True)
class Slice:
    """What one process holds of one limit, and what it has spent of it. Seconds are of the process's own clock."""

    kind: LimitKind
    limit: int
    held: int = 0
    spent: int = 0  # used up in this minute, or in use now
    end_seconds: float = 0.0  # until when it is held
    period: int = 0  # the same in the store's time; of what is used up it says which minute
    was_used: bool = True  # since the last settlement

    def take(self, now_seconds: float, count: int = 1) -> bool:
        """Spend some; False when there is not as much left here."""
        if now_seconds >= self.end_seconds or self.spent + count > min(self.held, self.limit):
            return False
        self.spent += count
        self.was_used = True
        return True

    def give_back(self, count: int = 1) -> None:
        """Have some more again: a generation ended, or a request was refused by another limit."""
        self.spent = max(0, self.spent - count)

    def is_whole(self, now_seconds: float, count: int = 1) -> bool:
        """Whether so much of the limit is spent here that the store cannot have what is asked for."""
        return now_seconds < self.end_seconds and self.spent + count > self.limit

    def is_low(self) -> bool:
        """Whether to lease more before there is none left. Small limits are leased one by one, as they are needed."""
        has_little = self.held < self.limit and self.held - self.spent < slice_size(self.limit) // 2
        return self.was_used and has_little

    def wanted(self, waited_for: int) -> int:
        """How much to ask for in all."""
        return min(self.limit, self.spent + max(slice_size(self.limit), waited_for))

    def settle(self) -> None:
        """Give up what was of no use since the last settlement.

        It is given up here before the store hears of it, so that nobody spends it twice.
        """
        if not self.was_used:
            self.held = min(self.held, self.spent)
        self.was_used = False

    def leased(self, held: int, period: int, end_seconds: float) -> None:
        """Note what the store answered. In another minute nothing is used up yet."""
        if self.kind.is_used_up and period != self.period:
            self.spent = 0
        self.held, self.period, self.end_seconds = held, period, end_seconds
