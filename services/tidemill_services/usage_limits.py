"""Holds callers to their limits without asking the store on every request: what may be spent is leased ahead.

One task does all that concerns the store: whoever finds a slice empty waits for its next round, and rounds that are
wanted at the same time are one transaction. A limit that nobody set costs nothing.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

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
        self._guard = guard
        self._caller = caller
        self._own = asyncio.Lock()

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[None]:
        """Have a place within the block; when there is none, wait for the call's own."""
        async with AsyncExitStack() as place:
            if self._own.locked():
                try:
                    await place.enter_async_context(self._guard.generation(self._caller))
                except LimitReachedError:
                    await place.enter_async_context(self._own)
            else:
                await place.enter_async_context(self._own)
            yield


@dataclass(slots=True)
class _Holding:
    """A slice, and who waits for more of it."""

    slice: Slice
    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    ask_again_seconds: float = 0.0

    def is_exhausted(self, now_seconds: float) -> bool:
        """Whether asking the store would be in vain."""
        return self.slice.is_whole(now_seconds) or now_seconds < self.ask_again_seconds


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

    @asynccontextmanager
    async def generation(self, caller: Caller) -> AsyncGenerator[None]:
        """Have a place for a generation within the block. Raises LimitReachedError, StoreUnavailableError."""
        taken = await self._take(caller, LimitKind.GENERATIONS)
        try:
            yield
        finally:
            _give_back(taken)

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

    async def _take(self, caller: Caller, kind: LimitKind) -> list[Slice]:
        """Spend one of the account's and one of the key's, or neither."""
        taken: list[Slice] = []
        try:
            for subject, limits in (
                (f"accounts/{caller.account_id}", caller.account_limits),
                (f"keys/{caller.key_id}", caller.key_limits),
            ):
                limit = limits.of(kind)
                if limit is not None:
                    taken.append(await self._take_one(subject, kind, limit))
        except BaseException:
            _give_back(taken)
            raise
        return taken

    async def _take_one(self, subject: str, kind: LimitKind, limit: int) -> Slice:
        holding = self._holdings.get((subject, kind))
        if holding is None:
            holding = self._holdings[subject, kind] = _Holding(Slice(kind, limit))
        holding.slice.limit = limit
        while not holding.slice.take(time.monotonic()):
            if holding.is_exhausted(time.monotonic()):
                raise _refusal(subject, holding.slice)
            await self._next_lease(holding)
        if holding.slice.is_low() and not holding.is_exhausted(time.monotonic()):
            self._wanted.set()
        return holding.slice

    async def _next_lease(self, holding: _Holding) -> None:
        leased = asyncio.get_running_loop().create_future()
        holding.waiting.append(leased)
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
                holding.waiting = []
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
        wanted=holding.slice.wanted(len(holding.waiting)) if needs_more else holding.slice.held,
        period=holding.slice.period,
    )


def _is_void(held: Slice, now: float) -> bool:
    """Whether a slice can be forgotten: nothing runs by it, or its minute is over."""
    return _is_over(held, now) or not (held.spent or held.held)


def _is_over(held: Slice, now: float) -> bool:
    return held.kind is LimitKind.REQUESTS and now >= held.end_seconds


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


def _give_back(taken: Iterable[Slice]) -> None:
    for each in taken:
        each.give_back()


def _refusal(subject: str, reached: Slice) -> LimitReachedError:
    who = "account" if subject.startswith("accounts/") else "key"
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
