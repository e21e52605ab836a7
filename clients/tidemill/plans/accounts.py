"""Accounts and keys: make, look, change, rotate, revoke; and what was done to them."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, TypedDict

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from tidemill import methods
from tidemill.account_results import (
    Account,
    ApiKey,
    AuditEvent,
    NewSecret,
    UsageLimits,
    account_of,
    api_key_of,
    audit_event_of,
    new_secret_of,
)
from tidemill.errors import FieldInvalidError
from tidemill.plans.paging import pages
from tidemill.steps import Deadline, Plan, build, request_id, timestamp, unary
from tidemill.v1 import account_pb2


class AccountSettings(TypedDict, total=False):
    """What an account may be told; all by keyword. What is left out stays as it is."""

    display_name: str
    use_cache: bool
    pays_per_token: bool
    """Whether it pays for answers by their tokens where the key has no open session of the model."""
    limits: UsageLimits
    """For administrators."""


class KeySettings(TypedDict, total=False):
    """What a key may be told; all by keyword. What is left out stays as it is."""

    display_name: str
    role: str
    """user or admin."""
    scopes: Sequence[str]
    """Some of inference, sessions, models, jobs, account; empty means everything."""
    default_model: str
    """models/{model} or the bare name; empty means none."""
    auto_session: bool
    """Whether the OpenAI door opens a session of the key by itself when none is open."""
    expire_time: datetime | None
    """When it stops working; None means never."""
    limits: UsageLimits


def get(account: str, *, deadline: Deadline) -> Plan[Account]:
    """Fetch an account; an empty name is the key's own."""
    message = yield from unary(methods.GET_ACCOUNT, build(account_pb2.GetAccountRequest, name=account), deadline)
    return account_of(message)


def create(account_id: str, settings: AccountSettings, *, deadline: Deadline) -> Plan[Account]:
    """Make an account."""
    request = build(
        account_pb2.CreateAccountRequest,
        account=_account(settings),
        account_id=account_id,
        request_id=request_id(),
    )
    return account_of((yield from unary(methods.CREATE_ACCOUNT, request, deadline)))


def update(account: str, settings: AccountSettings, *, deadline: Deadline) -> Plan[Account]:
    """Change an account's settings."""
    request = account_pb2.UpdateAccountRequest(
        account=_account(settings, name=account), update_mask=FieldMask(paths=sorted(settings))
    )
    return account_of((yield from unary(methods.UPDATE_ACCOUNT, request, deadline)))


def list_all(*, limit: int, deadline: Deadline) -> Plan[list[Account]]:
    """Fetch all accounts by name, at most `limit`."""

    def of_page(page: account_pb2.ListAccountsResponse) -> list[Account]:
        return [account_of(message) for message in page.accounts]

    return pages(methods.LIST_ACCOUNTS, of_page, limit, deadline)


def create_key(account: str, settings: KeySettings, *, deadline: Deadline) -> Plan[NewSecret]:
    """Make a key of an account; an empty name is the key's own."""
    request = build(account_pb2.CreateApiKeyRequest, api_key=_key(settings), account=account, request_id=request_id())
    return new_secret_of((yield from unary(methods.CREATE_API_KEY, request, deadline)))


def get_key(name: str, *, deadline: Deadline) -> Plan[ApiKey]:
    """Fetch a key."""
    message = yield from unary(methods.GET_API_KEY, build(account_pb2.GetApiKeyRequest, name=name), deadline)
    return api_key_of(message)


def list_keys(account: str, *, limit: int, deadline: Deadline) -> Plan[list[ApiKey]]:
    """Fetch an account's keys, newest first, at most `limit`."""

    def of_page(page: account_pb2.ListApiKeysResponse) -> list[ApiKey]:
        return [api_key_of(message) for message in page.api_keys]

    return pages(methods.LIST_API_KEYS, of_page, limit, deadline, account=account)


def update_key(name: str, settings: KeySettings, *, deadline: Deadline) -> Plan[ApiKey]:
    """Change a key's settings."""
    request = account_pb2.UpdateApiKeyRequest(
        api_key=_key(settings, name=name), update_mask=FieldMask(paths=sorted(settings))
    )
    return api_key_of((yield from unary(methods.UPDATE_API_KEY, request, deadline)))


def rotate_key(name: str, overlap: timedelta, *, deadline: Deadline) -> Plan[NewSecret]:
    """Give a key a new secret; the old one is valid for `overlap` more."""
    if not isinstance(overlap, timedelta):
        raise FieldInvalidError("overlap must be a timedelta.", field="overlap")
    duration = Duration()
    duration.FromTimedelta(overlap)
    request = build(account_pb2.RotateApiKeyRequest, name=name, overlap=duration, request_id=request_id())
    return new_secret_of((yield from unary(methods.ROTATE_API_KEY, request, deadline)))


def revoke_key(name: str, *, deadline: Deadline) -> Plan[ApiKey]:
    """Take a key out of use, for good."""
    request = build(account_pb2.RevokeApiKeyRequest, name=name, request_id=request_id())
    return api_key_of((yield from unary(methods.REVOKE_API_KEY, request, deadline)))


def list_events(account: str, *, limit: int, deadline: Deadline) -> Plan[list[AuditEvent]]:
    """Fetch what was done, newest first, at most `limit`."""

    def of_page(page: account_pb2.ListAuditEventsResponse) -> list[AuditEvent]:
        return [audit_event_of(message) for message in page.audit_events]

    return pages(methods.LIST_AUDIT_EVENTS, of_page, limit, deadline, account=account)


def _account(settings: AccountSettings, name: str = "") -> account_pb2.Account:
    _check_known(settings, AccountSettings)
    fields: dict[str, Any] = {**settings, "name": name}
    if "limits" in fields:
        fields["limits"] = _limits(settings["limits"], "account.limits")
    return build(account_pb2.Account, "account.", **fields)


def _key(settings: KeySettings, name: str = "") -> account_pb2.ApiKey:
    _check_known(settings, KeySettings)
    fields: dict[str, Any] = {**settings, "name": name}
    if "role" in fields:
        fields["role"] = f"ROLE_{str(fields['role']).upper()}"
    if "scopes" in fields:
        fields["scopes"] = [f"SCOPE_{str(scope).upper()}" for scope in fields["scopes"]]
    if fields.get("expire_time") is not None:
        fields["expire_time"] = timestamp(fields["expire_time"], "api_key.expire_time")
    if "limits" in fields:
        fields["limits"] = _limits(settings["limits"], "api_key.limits")
    return build(account_pb2.ApiKey, "api_key.", **fields)


def _limits(limits: UsageLimits, path: str) -> Message:
    if not isinstance(limits, UsageLimits):
        raise FieldInvalidError(f"{path} must be UsageLimits.", field=path)
    return build(account_pb2.UsageLimits, f"{path}.", **asdict(limits))


def _check_known(settings: AccountSettings | KeySettings, kind: type) -> None:
    for name in settings:
        if name not in kind.__annotations__:
            raise FieldInvalidError(f"There is no setting {name!r}.", field=name)
