"""Between accounts, keys and audit events and their messages."""

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask

from tidemill.v1 import account_pb2
from tidemill_services.api import convert
from tidemill_services.api.convert import timestamp
from tidemill_services.domain.account import Account
from tidemill_services.domain.api_key import ApiKey, Role, Scope, check_display_name
from tidemill_services.domain.audit import AuditEvent
from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.domain.ledger import Balance
from tidemill_services.domain.limits import UsageLimits

Name = TypeVar("Name")

ROLES = {
    Role.USER: account_pb2.ApiKey.ROLE_USER,
    Role.ADMIN: account_pb2.ApiKey.ROLE_ADMIN,
}
SCOPES = {
    Scope.INFERENCE: account_pb2.ApiKey.SCOPE_INFERENCE,
    Scope.SESSIONS: account_pb2.ApiKey.SCOPE_SESSIONS,
    Scope.MODELS: account_pb2.ApiKey.SCOPE_MODELS,
    Scope.JOBS: account_pb2.ApiKey.SCOPE_JOBS,
    Scope.ACCOUNT: account_pb2.ApiKey.SCOPE_ACCOUNT,
}
_LIMIT_PATHS = frozenset({"limits", *(f"limits.{each.name}" for each in fields(UsageLimits))})
ACCOUNT_PATHS = frozenset({"display_name", "use_cache", "pays_per_token"}) | _LIMIT_PATHS
KEY_PATHS = frozenset({"display_name", "role", "default_model", "auto_session", "expire_time", "scopes"}) | _LIMIT_PATHS


def account_message(account: Account, balance: Balance) -> account_pb2.Account:
    """An account, and what it has."""
    return account_pb2.Account(
        name=account.resource_name,
        display_name=account.display_name,
        use_cache=account.use_cache,
        pays_per_token=account.pays_per_token,
        create_time=timestamp(account.create_ms),
        balance_microcredits=balance.balance_microcredits,
        held_microcredits=balance.held_microcredits,
        limits=_limits_message(account.limits),
    )


def key_message(api_key: ApiKey) -> account_pb2.ApiKey:
    """A key without its secret."""
    return account_pb2.ApiKey(
        name=api_key.resource_name,
        display_name=api_key.display_name,
        role=ROLES[api_key.role],
        default_model=f"models/{api_key.default_model}" if api_key.default_model else "",
        auto_session=api_key.auto_session,
        create_time=timestamp(api_key.create_ms),
        expire_time=timestamp(api_key.expire_ms),
        revoke_time=timestamp(api_key.revoke_ms),
        scopes=sorted(SCOPES[scope] for scope in api_key.scopes),
        limits=_limits_message(api_key.limits),
        old_secret_expire_time=timestamp(api_key.old_secret_expire_ms),
    )


def event_message(event: AuditEvent) -> account_pb2.AuditEvent:
    """One act."""
    return account_pb2.AuditEvent(
        sequence_number=event.sequence,
        event_time=timestamp(event.event_ms),
        actor=event.actor,
        action=event.action,
        account=f"accounts/{event.account_id}" if event.account_id else "",
        resource=event.resource,
        changes=[
            account_pb2.AuditEvent.Change(field=each.field, old_value=each.old_value, new_value=each.new_value)
            for each in event.changes
        ],
    )


def paths_of(mask: FieldMask, known: Collection[str]) -> frozenset[str]:
    """What to change. Raises FieldInvalidError when it is nothing, or something else than what can be."""
    for path in mask.paths:
        if path not in known:
            listed = ", ".join(sorted(known))
            raise FieldInvalidError(f"update_mask has {path[:100]!r}; it may have {listed}.", field="update_mask")
    if not mask.paths:
        raise FieldInvalidError("update_mask is empty: name what to change.", field="update_mask")
    return frozenset(mask.paths)


def changed_account(before: Account, message: account_pb2.Account, paths: Collection[str]) -> Account:
    """The account with what the paths name taken from the message. Raises FieldInvalidError."""
    taken: dict[str, Any] = {}
    if "display_name" in paths:
        check_display_name(message.display_name, "account.display_name")
        taken["display_name"] = message.display_name
    for name in ("use_cache", "pays_per_token"):
        if name in paths:
            taken[name] = getattr(message, name)
    return replace(before, **taken, limits=_changed_limits(before.limits, message.limits, paths, "account.limits"))


def changed_key(before: ApiKey, message: account_pb2.ApiKey, paths: Collection[str]) -> ApiKey:
    """The key with what the paths name taken from the message. Raises FieldInvalidError."""
    taken = {name: read(message) for name, read in _KEY_FIELDS.items() if name in paths}
    if "expire_time" in taken:
        taken["expire_ms"] = taken.pop("expire_time")
    return replace(before, **taken, limits=_changed_limits(before.limits, message.limits, paths, "api_key.limits"))


def _display_name(message: account_pb2.ApiKey) -> str:
    check_display_name(message.display_name, "api_key.display_name")
    return message.display_name


def _role(message: account_pb2.ApiKey) -> Role:
    if message.role == account_pb2.ApiKey.ROLE_UNSPECIFIED:
        return Role.USER
    return _known(ROLES, message.role, "api_key.role")


def _scopes(message: account_pb2.ApiKey) -> frozenset[Scope]:
    return frozenset(_known(SCOPES, scope, "api_key.scopes") for scope in message.scopes)


_KEY_FIELDS: Mapping[str, Any] = {
    "display_name": _display_name,
    "role": _role,
    "default_model": lambda message: convert.model_id(message.default_model, "api_key.default_model") or None,
    "auto_session": lambda message: message.auto_session,
    "expire_time": lambda message: (
        convert.milliseconds(message.expire_time) if message.HasField("expire_time") else None
    ),
    "scopes": _scopes,
}


def _known(known: Mapping[Name, int], value: int, field: str) -> Name:
    for name, number in known.items():
        if number == value:
            return name
    raise FieldInvalidError(f"{field} has {value}, which means nothing.", field=field)


def _changed_limits(
    before: UsageLimits, message: account_pb2.UsageLimits, paths: Collection[str], field: str
) -> UsageLimits:
    after = replace(
        before,
        **{
            each.name: getattr(message, each.name) if message.HasField(each.name) else None
            for each in fields(UsageLimits)
            if "limits" in paths or f"limits.{each.name}" in paths
        },
    )
    after.check(field)
    return after


def _limits_message(limits: UsageLimits) -> account_pb2.UsageLimits:
    return account_pb2.UsageLimits(**{each.name: getattr(limits, each.name) for each in fields(UsageLimits)})
