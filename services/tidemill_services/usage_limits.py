"""Holds callers to their limits without asking the store on every request: what may be spent is leased ahead.

One task does all that concerns the store: whoever finds a slice empty waits for its next round, and rounds that are
wanted at the same time are one transaction. A limit that nobody set costs nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from tidemill_services.domain.errors import LimitReachedError, StoreUnavailableError
from tidemill_services.domain.limits import LimitKind, Slice, SliceAsk, SliceLease
from tidemill_services.identity import Caller
from tidemill_services.store import limit_slices
from tidemill_services.store.database import Database

SETTLE_SECONDS = 2.0  # what was not used for so long is given back; a fifth of a lease
_ASK_AGAIN_SECONDS = 0.2  # after the store had no more
_GENERATION_ENDS_SECONDS = 1.0  # when to try again: nobody knows when one ends

logger = logging.getLogger(__name__)


class CallPlaces:
    """The places for the generations of one call, which has one for certain, and more as long as there are some.

    So a batch that is larger than its account's limit takes longer, and none of its inputs is refused.
    """

    def __init__(self, guard: "UsageGuard", caller: Caller) -> None:
        """`caller` has the call's own place for as long as this is used."""
        self.caller = caller
        self._guard = guard
        self._own = asyncio.Lock()

    async def one(self) -> "Place":
        """A place for a `with` block; when there is none, wait for the call's own."""
        if self._own.locked():
            try:
                return await self._guard.generation(self.caller)
            except LimitReachedError:
                pass
        await self._own.acquire()
        return Place(self._own.release)

    async def tokens(self, bound: int) -> "TokensUsed":
        """Count the tokens of a generation: `bound` within a `with` block, and what it used from then on.

        Raises LimitReachedError, StoreUnavailableError.
        """
        return TokensUsed(await self._guard.take_tokens(self.caller, bound), bound)


class Place:
    """A place to run in, given back at the end of a `with` block."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back = give_back

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._give_back()


class TokensUsed:
    """The tokens of one generation; at the end of a `with` block those that were not used are given back."""

    def __init__(self, taken: "_Taken", bound: int) -> None:
        self.num_tokens = 0  # that were used
        self._taken = taken
        self._bound = bound

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._taken.give_back(self._bound - self.num_tokens)


@dataclass(frozen=True, slots=True)
class _Taken:
    """What was taken of some slices, each in its minute."""

    of: Sequence[tuple[Slice, int]]

    def give_back(self, count: int = 1) -> None:
        """Have some of it again; what was taken in a minute that is over has fallen back by itself."""
        for each, period in self.of:
            if not each.kind.is_used_up or each.period == period:
                each.give_back(count)


_NOTHING = _Taken(())


@dataclass(slots=True)
class _Holding:
    """A slice, and who waits for more of it."""

    slice: Slice
    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    waited_for: int = 0
    ask_again_seconds: float = 0.0

    def is_exhausted(self, now_seconds: float, count: int = 1) -> bool:
        """Whether asking the store would be in vain."""
        return self.slice.is_whole(now_seconds, count) or now_seconds < self.ask_again_seconds


class UsageGuard:
    """Counts what the callers of this process ask for."""

    def __init__(self, database: Database, process_id: str) -> None:
        self._database = database
        self._process_id = process_id
        self._holdings: dict[tuple[str, LimitKind], _Holding] = {}
        self._wanted = asyncio.Event()
        self._settled_seconds = time.monotonic()

    async def count_request(self, caller: Caller) -> None:
        """Count a request. Raises LimitReachedError, StoreUnavailableError."""
        await self._take(caller, LimitKind.REQUESTS)

    async def take_tokens(self, caller: Caller, count: int) -> _Taken:
        """Count tokens, which can be given back. Raises LimitReachedError, StoreUnavailableError."""
        return await self._take(caller, LimitKind.TOKENS, count)

    async def generation(self, caller: Caller) -> Place:
        """A place for a generation, for a `with` block. Raises LimitReachedError, StoreUnavailableError."""
        return Place((await self._take(caller, LimitKind.GENERATIONS)).give_back)

    async def run(self) -> None:
        """Lease, renew and give back slices. Runs until cancelled."""
        while True:
            try:
                async with asyncio.timeout(SETTLE_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            await self._settle()

    async def close(self) -> None:
        """Give back what would else be held until its lease has lapsed."""
        if self._holdings:
            try:
                await self._database.write(limit_slices.return_slices, self._process_id)
            except StoreUnavailableError as error:
                logger.warning("limits were not given back, they fall back by themselves: %s", error)

    async def _take(self, caller: Caller, kind: LimitKind, count: int = 1) -> _Taken:
        """Spend some of the account's and as many of the key's, or none."""
        of_account, of_key = caller.account_limits.of(kind), caller.key_limits.of(kind)
        if of_account is None and of_key is None:
            return _NOTHING
        taken: list[tuple[Slice, int]] = []
        try:
            for subject, limit in ((f"accounts/{caller.account_id}", of_account), (f"keys/{caller.key_id}", of_key)):
                if limit is not None:
                    one = await self._take_one(subject, kind, limit, count)
                    taken.append((one, one.period))
        except BaseException:
            _Taken(taken).give_back(count)
            raise
        return _Taken(taken)

    async def _take_one(self, subject: str, kind: LimitKind, limit: int, count: int) -> Slice:
        holding = self._holdings.get((subject, kind))
        if holding is None:
            holding = self._holdings[subject, kind] = _Holding(Slice(kind, limit))
        holding.slice.limit = limit
        while not holding.slice.take(time.monotonic(), count):
            if count > limit or holding.is_exhausted(time.monotonic(), count):
                raise _refusal(subject, holding.slice, count)
            await self._next_lease(holding, count)
        if holding.slice.is_low() and not holding.is_exhausted(time.monotonic()):
            self._wanted.set()
        return holding.slice

    async def _next_lease(self, holding: _Holding, count: int) -> None:
        leased = asyncio.get_running_loop().create_future()
        holding.waiting.append(leased)
        holding.waited_for += count
        self._wanted.set()
        await leased

    async def _settle(self) -> None:
        """One round with the store."""
        now = time.monotonic()
        is_time = now - self._settled_seconds >= SETTLE_SECONDS
        if is_time:
            self._settled_seconds = now
        asks: list[SliceAsk] = []
        asking: list[tuple[_Holding, list[asyncio.Future[None]]]] = []
        for (subject, kind), holding in list(self._holdings.items()):
            ask = _ask(subject, holding, now, is_time=is_time)
            if ask is not None:
                asks.append(ask)
                asking.append((holding, holding.waiting))
                holding.waiting, holding.waited_for = [], 0
            elif is_time and _is_void(holding.slice, now):
                del self._holdings[subject, kind]
        if not asks:
            return
        try:
            leases = await self._database.write(limit_slices.lease_slices, self._process_id, asks)
        except StoreUnavailableError as error:
            _fail((each for _, waiting in asking for each in waiting), error)
            return
        for (holding, waiting), ask, lease in zip(asking, asks, leases, strict=True):
            _note(holding, ask, lease, asked_seconds=now)
            for each in waiting:
                if not each.done():
                    each.set_result(None)


def _ask(subject: str, holding: _Holding, now: float, *, is_time: bool) -> SliceAsk | None:
    """What to ask the store for one slice; None when nothing has to be said."""
    if _is_over(holding.slice, now) and not holding.waiting:
        return None  # what is held of a minute that is over has fallen back by itself
    held_before = holding.slice.held
    if is_time:
        holding.slice.settle()
    needs_more = bool(holding.waiting) or (holding.slice.is_low() and not holding.is_exhausted(now))
    is_renewed = is_time and holding.slice.kind is LimitKind.GENERATIONS and held_before > 0
    if not (needs_more or is_renewed or holding.slice.held < held_before):
        return None
    return SliceAsk(
        subject=subject,
        kind=holding.slice.kind,
        limit=holding.slice.limit,
        held=holding.slice.held,
        spent=holding.slice.spent,
        wanted=holding.slice.wanted(holding.waited_for) if needs_more else holding.slice.held,
        period=holding.slice.period,
    )


def _is_void(held: Slice, now: float) -> bool:
    """Whether a slice can be forgotten: nothing runs by it, or its minute is over."""
    return _is_over(held, now) or not (held.spent or held.held)


def _is_over(held: Slice, now: float) -> bool:
    return held.kind.is_used_up and now >= held.end_seconds


def _note(holding: _Holding, ask: SliceAsk, lease: SliceLease, *, asked_seconds: float) -> None:
    # The store's time was read after we asked, so that we take the end for earlier than it is, never for later.
    end_seconds = asked_seconds + (lease.expire_ms - lease.now_ms) / 1000
    holding.slice.leased(lease.held, lease.expire_ms, end_seconds)
    if lease.held < ask.wanted:
        holding.ask_again_seconds = time.monotonic() + _ASK_AGAIN_SECONDS


def _fail(waiting: Iterable[asyncio.Future[None]], error: Exception) -> None:
    for each in waiting:
        if not each.done():
            each.set_exception(error)


def _refusal(subject: str, reached: Slice, count: int) -> LimitReachedError:
    who = "account" if subject.startswith("accounts/") else "key"
    if reached.kind is LimitKind.TOKENS:
        return _token_refusal(who, reached, count)
    if reached.kind is LimitKind.REQUESTS:
        left_seconds = max(0.1, reached.end_seconds - time.monotonic())
        return LimitReachedError(
            f"The {who} may make {reached.limit:,} requests a minute, and has: try again in the next one.",
            retry_after_seconds=left_seconds,
        )
    return LimitReachedError(
        f"The {who} may run {reached.limit:,} generations at a time, and does: try again when one has ended.",
        retry_after_seconds=_GENERATION_ENDS_SECONDS,
    )


def _token_refusal(who: str, reached: Slice, count: int) -> LimitReachedError:
    sentence = f"The {who} may use {reached.limit:,} tokens a minute, and this may take {count:,}: "
    if count > reached.limit:
        return LimitReachedError(f"{sentence}ask for fewer.", field="options.max_tokens")
    left_seconds = max(0.1, reached.end_seconds - time.monotonic())
    return LimitReachedError(f"{sentence}try again in the next one.", retry_after_seconds=left_seconds)
