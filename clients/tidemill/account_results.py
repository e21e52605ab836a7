"""What the methods of `client.accounts` return: frozen values, read from the wire in this file only."""

from dataclasses import dataclass, field, fields
from datetime import datetime

from tidemill.reading import name_of, time_of
from tidemill.v1 import account_pb2


@dataclass(frozen=True, slots=True)
class UsageLimits:
    """How much an account or a key may ask for; None: not limited."""

    requests_per_minute: int | None = None
    concurrent_generations: int | None = None
    concurrent_sessions: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """Who owns keys and pays."""

    name: str
    """accounts/{account}."""
    display_name: str
    balance_microcredits: int
    """Credits that are there, those that are held among them. 1 credit = 1,000,000 microcredits."""
    held_microcredits: int
    """Credits of these that are set aside for work under way, such as the next minutes of a session."""
    use_cache: bool
    """Whether jobs read the cache."""
    limits: UsageLimits
    """What all its keys together may ask for."""
    pays_per_token: bool
    """Whether it pays for answers by their tokens where the key has no open session of the model."""
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What identifies a caller, without its secret."""

    name: str
    """accounts/{account}/keys/{key}."""
    display_name: str
    role: str
    """user or admin."""
    scopes: tuple[str, ...]
    """What it may use: inference, sessions, models, jobs, account; empty means everything."""
    default_model: str
    """models/{model} of calls that name none; empty when there is none."""
    auto_session: bool
    """Whether the OpenAI door opens a session of it by itself when none is open."""
    limits: UsageLimits
    create_time: datetime | None
    expire_time: datetime | None
    """When it stops working; None when never."""
    revoke_time: datetime | None
    old_secret_expire_time: datetime | None
    """When the secret before the last rotation stops working."""


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A key with its secret, which is never shown again."""

    api_key: ApiKey
    secret: str = field(repr=False)
    """The key itself; empty when the server has shown it before, to a call whose answer was lost: rotate the key."""


@dataclass(frozen=True, slots=True)
class AuditChange:
    """A field that was changed; empty where there was or is no value."""

    field: str
    old_value: str
    new_value: str


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that was done to an account or a key, or by an administrator."""

    sequence_number: int
    event_time: datetime | None
    actor: str
    """The key that did it; empty when the server itself did."""
    action: str
    """The method, such as CreateApiKey."""
    account: str
    resource: str
    """What it was done to."""
    changes: tuple[AuditChange, ...]


def account_of(message: account_pb2.Account) -> Account:
    """Read an account."""
    return Account(
        name=message.name,
        display_name=message.display_name,
        balance_microcredits=message.balance_microcredits,
        held_microcredits=message.held_microcredits,
        use_cache=message.use_cache,
        limits=_limits_of(message.limits),
        pays_per_token=message.pays_per_token,
        create_time=time_of(message, "create_time"),
    )


def api_key_of(message: account_pb2.ApiKey) -> ApiKey:
    """Read a key."""
    return ApiKey(
        name=message.name,
        display_name=message.display_name,
        role=name_of(account_pb2.ApiKey.Role, message.role, "ROLE_"),
        scopes=tuple(name_of(account_pb2.ApiKey.Scope, scope, "SCOPE_") for scope in message.scopes),
        default_model=message.default_model,
        auto_session=message.auto_session,
        limits=_limits_of(message.limits),
        create_time=time_of(message, "create_time"),
        expire_time=time_of(message, "expire_time"),
        revoke_time=time_of(message, "revoke_time"),
        old_secret_expire_time=time_of(message, "old_secret_expire_time"),
    )


def new_secret_of(message: account_pb2.CreateApiKeyResponse | account_pb2.RotateApiKeyResponse) -> NewSecret:
    """Read a key that was made, or given a new secret."""
    return NewSecret(api_key_of(message.api_key), message.secret)


def audit_event_of(message: account_pb2.AuditEvent) -> AuditEvent:
    """Read an act."""
    return AuditEvent(
        sequence_number=message.sequence_number,
        event_time=time_of(message, "event_time"),
        actor=message.actor,
        action=message.action,
        account=message.account,
        resource=message.resource,
        changes=tuple(AuditChange(each.field, each.old_value, each.new_value) for each in message.changes),
    )


def _limits_of(message: account_pb2.UsageLimits) -> UsageLimits:
    return UsageLimits(
        **{
            each.name: getattr(message, each.name) if message.HasField(each.name) else None
            for each in fields(UsageLimits)
        }
    )
