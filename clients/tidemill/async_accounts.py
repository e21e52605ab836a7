"""`client.accounts` with asyncio: the methods of `tidemill.accounts`, awaited."""

import builtins
from collections.abc import Callable
from datetime import timedelta
from typing import Unpack

from tidemill.account_results import Account, ApiKey, AuditEvent, NewSecret
from tidemill.async_transport import AsyncTransport
from tidemill.plans import accounts
from tidemill.plans.accounts import AccountSettings, KeySettings
from tidemill.steps import Deadline


class AsyncAccounts:
    """The accounts and keys that a client's key may act on."""

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
