"""The Account service: read the message, ask the domain, write the message."""

import secrets
from typing import Any

import grpc

from tidemill.v1 import account_pb2
from tidemill_services.api import account_messages, convert
from tidemill_services.api.account_messages import account_message, event_message, key_message
from tidemill_services.api.account_scope import account_meant
from tidemill_services.api.billing import BillingMethods
from tidemill_services.api.idempotency import once, request_key
from tidemill_services.api.interceptors import current_caller
from tidemill_services.domain.account import Account, check_account_id
from tidemill_services.domain.api_key import ApiKey, Role, check_expiry, check_may_manage, check_not_revoked, revoked
from tidemill_services.domain.errors import AccountExistsError, FieldInvalidError, RoleRequiredError
from tidemill_services.identity import Caller
from tidemill_services.store import accounts, api_keys, audit, ledger, models
from tidemill_services.store.database import Database, Transaction

Context = grpc.aio.ServicerContext[Any, Any]


class AccountService(BillingMethods):
    """Serves `tidemill.v1.AccountService`."""

    def __init__(self, database: Database, platform_secret: bytes) -> None:
        self._database = database
        self._platform_secret = platform_secret

    async def GetAccount(  # noqa: N802 -- the contract's name
        self, request: account_pb2.GetAccountRequest, _context: Context
    ) -> account_pb2.Account:
        """Return an account."""
        account_id = account_meant(current_caller(), request.name, "name")
        return await self._database.read(lambda tx: _account_message(tx, accounts.get_account(tx, account_id)))

    async def CreateAccount(  # noqa: N802 -- the contract's name
        self, request: account_pb2.CreateAccountRequest, _context: Context
    ) -> account_pb2.Account:
        """Make an account."""
        caller = current_caller()
        account_id = request.account_id or f"a{secrets.token_hex(6)}"
        check_account_id(account_id)
        asked = account_messages.changed_account(
            Account(account_id, "", 0), request.account, account_messages.ACCOUNT_PATHS - {"use_cache"}
        )

        def create(tx: Transaction) -> account_pb2.Account:
            if accounts.find_account(tx, account_id) is not None:
                raise AccountExistsError(field="account_id")
            made = accounts.create_account(
                tx,
                account_id,
                asked.display_name,
                pays_per_token=asked.pays_per_token,
                limits=asked.limits,
                actor=caller.key_name,
            )
            return _account_message(tx, made)

        key = request_key(caller, "CreateAccount", request, request.request_id)
        return await self._database.write(once, key, account_pb2.Account, create)

    async def UpdateAccount(  # noqa: N802 -- the contract's name
        self, request: account_pb2.UpdateAccountRequest, _context: Context
    ) -> account_pb2.Account:
        """Change an account's settings."""
        caller = current_caller()
        account_id = account_meant(caller, request.account.name, "account.name")
        paths = account_messages.paths_of(request.update_mask, account_messages.ACCOUNT_PATHS)
        if any(path.startswith("limits") for path in paths):
            _check_may_limit(caller, request.account.name)

        def change(tx: Transaction) -> account_pb2.Account:
            before = accounts.get_account(tx, account_id)
            after = account_messages.changed_account(before, request.account, paths)
            accounts.save_account(tx, before, after, actor=caller.key_name)
            return _account_message(tx, after)

        return await self._database.write(change)

    async def ListAccounts(  # noqa: N802 -- the contract's name
        self, request: account_pb2.ListAccountsRequest, _context: Context
    ) -> account_pb2.ListAccountsResponse:
        """List all accounts."""

        def list_page(tx: Transaction) -> account_pb2.ListAccountsResponse:
            page = accounts.list_accounts(tx, page_size=request.page_size, page_token=request.page_token)
            has = ledger.balances_of(tx, [account.account_id for account in page.accounts])
            return account_pb2.ListAccountsResponse(
                accounts=[account_message(account, has[account.account_id]) for account in page.accounts],
                next_page_token=page.next_page_token,
            )

        return await self._database.read(list_page)

    async def CreateApiKey(  # noqa: N802 -- the contract's name
        self, request: account_pb2.CreateApiKeyRequest, _context: Context
    ) -> account_pb2.CreateApiKeyResponse:
        """Make a key and show it, this once."""
        caller = current_caller()
        account_id = account_meant(caller, request.account, "account")
        empty = ApiKey("", account_id, "", b"", Role.USER, None, 0)
        asked = account_messages.changed_key(empty, request.api_key, account_messages.KEY_PATHS)
        _check_may_manage(caller, asked)

        def create(tx: Transaction) -> account_pb2.CreateApiKeyResponse:
            accounts.get_account(tx, account_id)
            _check_settings(tx, asked)
            api_key, secret = accounts.create_api_key(
                tx,
                account_id,
                self._platform_secret,
                display_name=asked.display_name,
                role=asked.role,
                default_model=asked.default_model,
                auto_session=asked.auto_session,
                expire_ms=asked.expire_ms,
                scopes=asked.scopes,
                limits=asked.limits,
                actor=caller.key_name,
            )
            return account_pb2.CreateApiKeyResponse(api_key=key_message(api_key), secret=secret)

        key = request_key(caller, "CreateApiKey", request, request.request_id)
        return await self._database.write(once, key, account_pb2.CreateApiKeyResponse, create, left_out=["secret"])

    async def GetApiKey(  # noqa: N802 -- the contract's name
        self, request: account_pb2.GetApiKeyRequest, _context: Context
    ) -> account_pb2.ApiKey:
        """Return a key."""
        account_id, key_id = convert.key_ids(request.name)
        return key_message(await self._database.read(_key_meant, current_caller(), account_id, key_id))

    async def ListApiKeys(  # noqa: N802 -- the contract's name
        self, request: account_pb2.ListApiKeysRequest, _context: Context
    ) -> account_pb2.ListApiKeysResponse:
        """List an account's keys."""
        account_id = account_meant(current_caller(), request.account, "account")

        def list_page(tx: Transaction) -> account_pb2.ListApiKeysResponse:
            accounts.get_account(tx, account_id)
            page = api_keys.list_api_keys(tx, account_id, page_size=request.page_size, page_token=request.page_token)
            return account_pb2.ListApiKeysResponse(
                api_keys=[key_message(api_key) for api_key in page.api_keys], next_page_token=page.next_page_token
            )

        return await self._database.read(list_page)

    async def UpdateApiKey(  # noqa: N802 -- the contract's name
        self, request: account_pb2.UpdateApiKeyRequest, _context: Context
    ) -> account_pb2.ApiKey:
        """Change a key's settings."""
        caller = current_caller()
        account_id, key_id = convert.key_ids(request.api_key.name, "api_key.name")
        paths = account_messages.paths_of(request.update_mask, account_messages.KEY_PATHS)

        def change(tx: Transaction) -> account_pb2.ApiKey:
            before = _key_meant(tx, caller, account_id, key_id)
            after = account_messages.changed_key(before, request.api_key, paths)
            _check_may_manage(caller, before)
            _check_may_manage(caller, after)
            check_not_revoked(before)
            _check_settings(tx, after, before)
            api_keys.save_api_key(tx, before, after, actor=caller.key_name, action="UpdateApiKey")
            return key_message(after)

        return await self._database.write(change)

    async def RotateApiKey(  # noqa: N802 -- the contract's name
        self, request: account_pb2.RotateApiKeyRequest, _context: Context
    ) -> account_pb2.RotateApiKeyResponse:
        """Give a key a new secret and show it, this once."""
        caller = current_caller()
        account_id, key_id = convert.key_ids(request.name)
        overlap_ms = request.overlap.seconds * 1000 + request.overlap.nanos // 1_000_000

        def rotate(tx: Transaction) -> account_pb2.RotateApiKeyResponse:
            before = _key_meant(tx, caller, account_id, key_id)
            _check_may_manage(caller, before)
            after, secret = api_keys.rotate_api_key(
                tx, before, self._platform_secret, overlap_ms=overlap_ms, actor=caller.key_name
            )
            return account_pb2.RotateApiKeyResponse(api_key=key_message(after), secret=secret)

        key = request_key(caller, "RotateApiKey", request, request.request_id)
        return await self._database.write(once, key, account_pb2.RotateApiKeyResponse, rotate, left_out=["secret"])

    async def RevokeApiKey(  # noqa: N802 -- the contract's name
        self, request: account_pb2.RevokeApiKeyRequest, _context: Context
    ) -> account_pb2.ApiKey:
        """Take a key out of use, and end its sessions."""
        caller = current_caller()
        account_id, key_id = convert.key_ids(request.name)

        def revoke(tx: Transaction) -> account_pb2.ApiKey:
            before = _key_meant(tx, caller, account_id, key_id)
            check_may_manage(before.role, caller.scopes, actor_role=caller.role, actor_scopes=caller.scopes)
            after = revoked(before, tx.now_ms)
            api_keys.save_api_key(tx, before, after, actor=caller.key_name, action="RevokeApiKey")
            return key_message(after)

        key = request_key(caller, "RevokeApiKey", request, request.request_id)
        return await self._database.write(once, key, account_pb2.ApiKey, revoke)

    async def ListAuditEvents(  # noqa: N802 -- the contract's name
        self, request: account_pb2.ListAuditEventsRequest, _context: Context
    ) -> account_pb2.ListAuditEventsResponse:
        """List what was done."""
        caller = current_caller()
        is_all = caller.is_admin and not request.account
        account_id = "" if is_all else account_meant(caller, request.account, "account")
        page = await self._database.read(
            audit.list_events, account_id, page_size=request.page_size, page_token=request.page_token
        )
        return account_pb2.ListAuditEventsResponse(
            audit_events=[event_message(event) for event in page.events], next_page_token=page.next_page_token
        )


def _account_message(tx: Transaction, account: Account) -> account_pb2.Account:
    return account_message(account, ledger.balance_of(tx, account.account_id))


def _key_meant(tx: Transaction, caller: Caller, account_id: str, key_id: str) -> ApiKey:
    """The key that a request names. Raises ApiKeyNotFoundError, also for one that the caller may not act on."""
    own = account_id if caller.is_admin else caller.account_id
    return api_keys.get_api_key(tx, own if own == account_id else "", key_id)


def _check_may_manage(caller: Caller, api_key: ApiKey) -> None:
    check_may_manage(api_key.role, api_key.scopes, actor_role=caller.role, actor_scopes=caller.scopes)


def _check_settings(tx: Transaction, after: ApiKey, before: ApiKey | None = None) -> None:
    """Raise ModelNotFoundError or FieldInvalidError for new settings that cannot be."""
    if after.default_model and (before is None or before.default_model != after.default_model):
        models.get_model(tx, after.default_model)
    if before is None or before.expire_ms != after.expire_ms:
        check_expiry(after.expire_ms, tx.now_ms)


def _check_may_limit(caller: Caller, named: str) -> None:
    """Raise RoleRequiredError, or FieldInvalidError where an administrator would limit whoever they are themselves."""
    if not caller.is_admin:
        raise RoleRequiredError("Only an administrator's key may change an account's limits.")
    if not named:
        raise FieldInvalidError("Limits are changed of an account that is named.", field="account.name")
