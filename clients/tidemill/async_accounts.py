"""`client.accounts` with asyncio: the methods of `tidemill.accounts`, awaited."""

import builtins
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Unpack

from tidemill.account_results import Account, ApiKey, AuditEvent, NewSecret
from tidemill.async_transport import AsyncTransport
from tidemill.billing_results import LedgerBlock, LedgerEntry, Price, UsageReport
from tidemill.plans import accounts, billing
from tidemill.plans.accounts import AccountSettings, KeySettings
from tidemill.receipt import Receipt
from tidemill.results import ModelPrices
from tidemill.steps import Deadline, Line
from tidemill.streams import AsyncStream


class AsyncAccounts:
    """The accounts, keys and credits that a client's key may act on."""

    def __init__(self, transport: AsyncTransport, deadline: Callable[[], Deadline]) -> None:
        self._transport = transport
        self._deadline = deadline

    async def get(self, account: str = "") -> Account:
        """Fetch an account; without a name the key's own."""
        return await self._transport.run(accounts.get(account, deadline=self._deadline()))

    async def create(self, account_id: str = "", **settings: Unpack[AccountSettings]) -> Account:
        """Make an account, for administrators; without an id the server chooses one."""
        return await self._transport.run(accounts.create(account_id, settings, deadline=self._deadline()))

    async def update(self, account: str = "", **settings: Unpack[AccountSettings]) -> Account:
        """Change an account's settings; what is left out stays as it is."""
        return await self._transport.run(accounts.update(account, settings, deadline=self._deadline()))

    async def list(self, *, limit: int = 1_000) -> "builtins.list[Account]":
        """Fetch all accounts by name, at most `limit`; for administrators."""
        return await self._transport.run(accounts.list_all(limit=limit, deadline=self._deadline()))

    async def create_key(self, account: str = "", **settings: Unpack[KeySettings]) -> NewSecret:
        """Make a key, for the key's own account unless another one is named. Its secret is in this answer only."""
        return await self._transport.run(accounts.create_key(account, settings, deadline=self._deadline()))

    async def get_key(self, name: str) -> ApiKey:
        """Fetch a key."""
        return await self._transport.run(accounts.get_key(name, deadline=self._deadline()))

    async def list_keys(self, account: str = "", *, limit: int = 1_000) -> "builtins.list[ApiKey]":
        """Fetch an account's keys, newest first, at most `limit`."""
        return await self._transport.run(accounts.list_keys(account, limit=limit, deadline=self._deadline()))

    async def update_key(self, name: str, **settings: Unpack[KeySettings]) -> ApiKey:
        """Change a key's settings; what is left out stays as it is."""
        return await self._transport.run(accounts.update_key(name, settings, deadline=self._deadline()))

    async def rotate_key(self, name: str, overlap: timedelta = timedelta(0)) -> NewSecret:
        """Give a key a new secret; the old one is valid for `overlap` more, at most 30 days."""
        return await self._transport.run(accounts.rotate_key(name, overlap, deadline=self._deadline()))

    async def revoke_key(self, name: str) -> ApiKey:
        """Take a key out of use, for good; its sessions end with it."""
        return await self._transport.run(accounts.revoke_key(name, deadline=self._deadline()))

    async def list_events(self, account: str = "", *, limit: int = 50) -> "builtins.list[AuditEvent]":
        """Fetch what was done to an account and its keys, newest first; administrators see all when they name none."""
        return await self._transport.run(accounts.list_events(account, limit=limit, deadline=self._deadline()))

    # Money: credits, the ledger, prices.

    async def grant_credits(self, account: str, amount_microcredits: int, reason: str) -> LedgerEntry:
        """Give an account credits; for administrators. 1 credit = 1,000,000 microcredits."""
        plan = billing.grant(account, amount_microcredits, reason, deadline=self._deadline())
        return await self._transport.run(plan)

    async def refund_credits(self, session: str, amount_microcredits: int | None = None, *, reason: str) -> LedgerEntry:
        """Give back what a session cost, without an amount all that is not given back yet; for administrators."""
        plan = billing.refund(session, amount_microcredits, reason, deadline=self._deadline())
        return await self._transport.run(plan)

    async def correct_balance(self, account: str, amount_microcredits: int, reason: str) -> LedgerEntry:
        """Put a mistake right: add to a balance, or with a negative amount take from it; for administrators."""
        plan = billing.correct(account, amount_microcredits, reason, deadline=self._deadline())
        return await self._transport.run(plan)

    def ledger_entries(
        self, account: str = "", *, session: str = "", kinds: Sequence[str] = ()
    ) -> AsyncStream[LedgerEntry]:
        """Iterate over what was granted, held, charged and refunded, oldest first; of one session when it is named.

        `kinds` are some of grant, hold, release, session_charge, token_charge, reservation_charge, refund, transfer,
        correction.
        """
        line = Line()
        plan = billing.entries(account, session, kinds, line, new_deadline=self._deadline)
        return AsyncStream(self._transport, plan, line)

    async def receipt(self, session: str) -> Receipt:
        """Fetch a session's rows with the proof that they stand in the ledger: `tidemill.verify_receipt` checks it."""
        return await self._transport.run(billing.receipt(session, deadline=self._deadline()))

    async def ledger_block(self, number: int = 0) -> LedgerBlock:
        """Fetch a sealed block, to compare with one in a receipt; 0 is the last one."""
        return await self._transport.run(billing.ledger_block(number, deadline=self._deadline()))

    async def usage_report(
        self,
        account: str = "",
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        group_by: Sequence[str] = ("day", "model"),
        label_key: str = "",
    ) -> UsageReport:
        """Sum up what was used from `start_time`, else this month's first day, until before `end_time`, else now.

        `group_by` are some of day (UTC), model, api_key, label; label is the one of `label_key`.
        """
        plan = billing.usage_report(account, start_time, end_time, group_by, label_key, deadline=self._deadline())
        return await self._transport.run(plan)

    async def prices(
        self, model: str = "", *, account: str = "", include_history: bool = False, limit: int = 1_000
    ) -> "builtins.list[Price]":
        """Fetch the prices that hold, or with `include_history` all that ever did, at most `limit`."""
        plan = billing.prices(model, account, include_history=include_history, limit=limit, deadline=self._deadline())
        return await self._transport.run(plan)

    async def set_price(self, model: str, prices: ModelPrices, *, account: str = "") -> Price:
        """Set a model's price, for everybody or for one account; for administrators. Open sessions keep theirs."""
        return await self._transport.run(billing.set_price(model, prices, account, deadline=self._deadline()))

    async def withdraw_price(self, model: str, account: str) -> Price:
        """Take an account's own price of a model away, so that the platform's holds again; for administrators."""
        return await self._transport.run(billing.withdraw_price(model, account, deadline=self._deadline()))
