"""Pays answers by their tokens without asking the store on every request: credits are held ahead, in slices.

One task does all that concerns the store: whoever finds an account's slice empty waits for its next round, and all
rounds that are wanted at the same time are one transaction. What is charged while the store is away waits for it, never
more than is held; if the process dies, too, it is not charged.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tidemill_services.domain.errors import InsufficientCreditsError, StoreUnavailableError
from tidemill_services.domain.price import Price
from tidemill_services.domain.pricing import credits_text
from tidemill_services.domain.token_billing import SLICE_LEASE_MS, Settlement, TokenCharge, token_cost
from tidemill_services.identity import Caller
from tidemill_services.store import credit_slices
from tidemill_services.store.database import Database

SETTLE_SECONDS = 1.0  # that an answer waits for its charge
RENEW_SECONDS = SLICE_LEASE_MS / 4000
NUM_ANSWERS_AHEAD = 8  # that a slice pays for, of the dearest that was asked for lately

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Purse:
    """What this process holds of one account's credits, in microcredits, and what has become of it."""

    held: int = 0
    end_seconds: float = 0.0  # until when, on the clock of `time.monotonic`
    reserved: int = 0
    unsettled: int = 0  # what the charges cost that are not known to stand in the ledger
    owed: list[tuple[TokenCharge, float]] = field(default_factory=list)  # with the times of their ends
    settling: list[tuple[TokenCharge, float]] = field(default_factory=list)  # told the store
    number: int = 0  # of those
    waiting: list[tuple[asyncio.Future[None], int]] = field(default_factory=list)
    dearest: int = 0  # amount that was set aside lately
    was_used: bool = True  # since the last renewal

    @property
    def is_empty(self) -> bool:
        """Whether it can be forgotten."""
        return not (self.held or self.reserved or self.owed or self.settling or self.waiting or self.was_used)

    def free(self) -> int:
        """What can be set aside now."""
        return self.held - self.reserved - self.unsettled if time.monotonic() < self.end_seconds else 0

    def has_news(self) -> bool:
        """Whether the store has to hear of it before its renewal."""
        return bool(self.owed or self.settling or self.waiting) or (self.was_used and self.free() < self.dearest)


class Reservation:
    """Credits that are set aside for one answer, until it is charged or nothing came of it."""

    def __init__(self, end: Callable[[int, int], None]) -> None:
        self._end: Callable[[int, int], None] | None = end

    def charge(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Charge what was used, no more than is set aside. Only the first end counts."""
        end, self._end = self._end, None
        if end is not None:
            end(prompt_tokens, completion_tokens)

    def release(self) -> None:
        """Charge nothing."""
        self.charge(0, 0)


class TokenFunds:
    """The slices of this process."""

    def __init__(self, database: Database, process_id: str) -> None:
        self._database = database
        self._process_id = process_id
        self._purses: dict[str, _Purse] = {}
        self._last_number = 0
        self._wanted = asyncio.Event()
        self._renewed_seconds = time.monotonic()

    async def reserve(self, caller: Caller, price: Price, prompt_tokens: int, max_tokens: int) -> Reservation:
        """Set aside the most that an answer can cost. Raises InsufficientCreditsError, StoreUnavailableError."""
        amount = token_cost(price, prompt_tokens, max_tokens)
        purse = self._purses.setdefault(caller.account_id, _Purse())
        purse.was_used, purse.dearest = True, max(purse.dearest, amount)
        if amount > purse.free():
            await self._hold_more(purse, amount)
        purse.reserved += amount
        if purse.has_news():
            self._wanted.set()

        def end(used_prompt: int, used_completion: int) -> None:
            purse.reserved -= amount
            if used_prompt or used_completion:
                cost = min(token_cost(price, used_prompt, used_completion), amount)
                charge = TokenCharge(caller.key_id, price.model, price.revision, cost, used_prompt, used_completion)
                purse.owed.append((charge, time.monotonic()))
                purse.unsettled += cost

        return Reservation(end)

    async def run(self) -> None:
        """Hold, charge, renew and give back. Runs until cancelled."""
        while True:
            try:
                async with asyncio.timeout(SETTLE_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            await self._settle()

    async def close(self) -> None:
        """Charge what is owed and give back what is held; call it when nothing runs any more."""
        for purse in self._purses.values():
            purse.was_used = False
        await self._settle(is_renewal=True)  # what the store was told of before, perhaps in vain
        await self._settle(is_renewal=True)

    async def _hold_more(self, purse: _Purse, amount: int) -> None:
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        purse.waiting.append((held, amount))
        self._wanted.set()
        await held
        missing = amount - purse.free()
        if missing > 0:
            raise InsufficientCreditsError(
                f"This answer may cost {credits_text(amount)} credits by its tokens, and {credits_text(missing)} of "
                "them are not there: ask for fewer tokens, or have credits granted."
            )

    async def _settle(self, *, is_renewal: bool = False) -> None:
        """One round with the store."""
        now = time.monotonic()
        is_renewal = is_renewal or now - self._renewed_seconds >= RENEW_SECONDS
        if is_renewal:
            self._renewed_seconds = now
        asking = {account_id: purse for account_id, purse in self._purses.items() if is_renewal or purse.has_news()}
        settlements = [
            self._settlement(account_id, purse, now, is_renewal=is_renewal) for account_id, purse in asking.items()
        ]
        waiting = [each for purse in asking.values() for each in _take_waiting(purse)]
        try:
            if settlements:
                held = await self._database.write(credit_slices.settle, self._process_id, settlements)
                self._note(asking, held, now)
            if is_renewal and await self._database.read(credit_slices.has_lapsed):
                await self._database.write(credit_slices.return_lapsed)
        except StoreUnavailableError as error:
            logger.warning("answers that are paid by their tokens are not charged yet: %s", error)
            _end_waits(waiting, error)
        else:
            _end_waits(waiting, None)

    def _settlement(self, account_id: str, purse: _Purse, now: float, *, is_renewal: bool) -> Settlement:
        if not purse.settling and purse.owed:
            purse.settling, purse.owed = purse.owed, []
            purse.number = self._last_number = self._last_number + 1
        charges = [replace(charge, age_ms=int((now - ended) * 1000)) for charge, ended in purse.settling]
        of_charges = sum(charge.cost_microcredits for charge in charges)
        needed = purse.reserved + purse.unsettled - of_charges
        gives_back = is_renewal and not purse.was_used
        if gives_back:  # before the store hears of it, so that nobody spends it here meanwhile
            purse.held = min(purse.held, needed + of_charges)
            purse.dearest = 0
        needed += sum(amount for _, amount in purse.waiting)
        if is_renewal:
            purse.was_used = False
        return Settlement(account_id, purse.number, charges, needed, NUM_ANSWERS_AHEAD * purse.dearest, gives_back)

    def _note(self, asked: Mapping[str, _Purse], held: Sequence[int], now: float) -> None:
        for (account_id, purse), amount in zip(asked.items(), held, strict=True):
            purse.held = amount
            purse.unsettled -= sum(charge.cost_microcredits for charge, _ in purse.settling)
            purse.settling = []
            purse.end_seconds = now + SLICE_LEASE_MS / 1000  # of before the store's answer: rather too early
            if purse.is_empty:
                del self._purses[account_id]


def _take_waiting(purse: _Purse) -> list[asyncio.Future[None]]:
    waiting, purse.waiting = purse.waiting, []
    return [held for held, _ in waiting]


def _end_waits(waiting: Sequence[asyncio.Future[None]], error: Exception | None) -> None:
    for held in waiting:
        if held.done():  # its caller went away
            continue
        if error is None:
            held.set_result(None)
        else:
            held.set_exception(error)
