"""Units of work on accounts, and on making and finding keys."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Row, insert, or_, select, update

from tidemill_services.domain.account import Account
from tidemill_services.domain.api_key import (
    NUM_RANDOM_BYTES,
    ApiKey,
    Role,
    Scope,
    format_api_key,
    hash_api_key,
    platform_secret_id,
    scopes_of_text,
    scopes_text,
)
from tidemill_services.domain.audit import changes_between
from tidemill_services.domain.errors import AccountNotFoundError
from tidemill_services.domain.limits import UsageLimits
from tidemill_services.store import audit
from tidemill_services.store.database import Transaction
from tidemill_services.store.paging import page_size_of
from tidemill_services.store.tables import accounts, api_keys
from tidemill_services.store.topics import KEYS


@dataclass(frozen=True, slots=True)
class AccountPage:
    """Some accounts, by name."""

    accounts: tuple[Account, ...]
    next_page_token: str  # empty on the last page


def create_account(
    tx: Transaction,
    account_id: str,
    display_name: str,
    *,
    use_cache: bool = True,
    pays_per_token: bool = False,
    limits: UsageLimits | None = None,
    actor: str = "",
) -> Account:
    """Make an account; the one that is there under this id is returned as it is."""
    existing = find_account(tx, account_id)
    if existing is not None:
        return existing
    account = Account(account_id, display_name, tx.now_ms, use_cache, pays_per_token, limits or UsageLimits())
    tx.connection.execute(
        insert(accounts).values(
            account_id=account_id,
            display_name=display_name,
            create_ms=tx.now_ms,
            use_cache=use_cache,
            pays_per_token=pays_per_token,
            **limit_columns(account.limits),
        )
    )
    _record(tx, actor, "CreateAccount", account, {})
    return account


def find_account(tx: Transaction, account_id: str) -> Account | None:
    """Return the account, or None."""
    row = tx.connection.execute(select(accounts).where(accounts.c.account_id == account_id)).one_or_none()
    return None if row is None else _account(row)


def get_account(tx: Transaction, account_id: str) -> Account:
    """Return the account. Raises AccountNotFoundError."""
    account = find_account(tx, account_id)
    if account is None:
        raise AccountNotFoundError
    return account


def save_account(tx: Transaction, before: Account, after: Account, *, actor: str) -> None:
    """Write an account's changed settings."""
    if after == before:
        return
    tx.connection.execute(
        update(accounts)
        .where(accounts.c.account_id == after.account_id)
        .values(
            display_name=after.display_name,
            use_cache=after.use_cache,
            pays_per_token=after.pays_per_token,
            **limit_columns(after.limits),
        )
    )
    tx.notify(KEYS)
    _record(tx, actor, "UpdateAccount", after, before.facts())


def list_accounts(tx: Transaction, *, page_size: int = 0, page_token: str = "") -> AccountPage:
    """Return a page of all accounts, by name. Raises FieldInvalidError."""
    size = page_size_of(page_size)
    query = select(accounts).where(accounts.c.account_id > page_token).order_by(accounts.c.account_id)
    found = [_account(row) for row in tx.connection.execute(query.limit(size + 1))]
    page = tuple(found[:size])
    return AccountPage(page, page[-1].account_id if len(found) > size else "")


def create_api_key(
    tx: Transaction,
    account_id: str,
    platform_secret: bytes,
    *,
    display_name: str = "",
    role: Role = Role.USER,
    default_model: str | None = None,
    auto_session: bool = False,
    expire_ms: int | None = None,
    scopes: Collection[Scope] = (),
    limits: UsageLimits | None = None,
    actor: str = "",
) -> tuple[ApiKey, str]:
    """Make a key of an account. Returns its record and the key itself, which is stored nowhere."""
    secret = new_secret()
    api_key = ApiKey(
        key_id=f"{tx.now_ms:012x}{secrets.token_hex(4)}",  # sorts by creation
        account_id=account_id,
        display_name=display_name,
        secret_hash=hash_api_key(platform_secret, secret),
        role=role,
        default_model=default_model,
        create_ms=tx.now_ms,
        auto_session=auto_session,
        expire_ms=expire_ms,
        scopes=frozenset(scopes),
        limits=limits or UsageLimits(),
    )
    tx.connection.execute(
        insert(api_keys).values(
            key_id=api_key.key_id,
            account_id=account_id,
            create_ms=tx.now_ms,
            secret_id=platform_secret_id(platform_secret),
            **key_columns(api_key),
        )
    )
    audit.record(
        tx,
        actor=actor,
        action="CreateApiKey",
        account_id=account_id,
        resource=api_key.resource_name,
        changes=changes_between({}, api_key.facts()),
    )
    return api_key, secret


def new_secret() -> str:
    """A new key, never seen before."""
    return format_api_key(secrets.token_bytes(NUM_RANDOM_BYTES))


def find_key_by_hash(tx: Transaction, secret_hash: bytes) -> ApiKey | None:
    """Return the key under this hash, if it is valid now; None for unknown, expired and revoked ones."""
    is_hash = or_(api_keys.c.secret_hash == secret_hash, api_keys.c.old_secret_hash == secret_hash)
    row = tx.connection.execute(select(api_keys).where(is_hash)).one_or_none()
    if row is None:
        return None
    found = api_key_of(row)
    return found if found.matches(secret_hash, tx.now_ms) and found.is_valid(tx.now_ms) else None


def api_key_of(row: Row[Any]) -> ApiKey:
    """A row of the table as a record."""
    return ApiKey(
        key_id=row.key_id,
        account_id=row.account_id,
        display_name=row.display_name,
        secret_hash=bytes(row.secret_hash),
        role=Role(row.role),
        default_model=row.default_model,
        create_ms=row.create_ms,
        auto_session=row.auto_session,
        expire_ms=row.expire_ms,
        revoke_ms=row.revoke_ms,
        scopes=scopes_of_text(row.scopes),
        limits=_limits(row),
        old_secret_hash=None if row.old_secret_hash is None else bytes(row.old_secret_hash),
        old_secret_expire_ms=row.old_secret_expire_ms,
    )


def key_columns(api_key: ApiKey) -> dict[str, Any]:
    """The columns of a key that may change."""
    return {
        "display_name": api_key.display_name,
        "secret_hash": api_key.secret_hash,
        "role": api_key.role.value,
        "default_model": api_key.default_model,
        "auto_session": api_key.auto_session,
        "expire_ms": api_key.expire_ms,
        "revoke_ms": api_key.revoke_ms,
        "scopes": scopes_text(api_key.scopes),
        "old_secret_hash": api_key.old_secret_hash,
        "old_secret_expire_ms": api_key.old_secret_expire_ms,
        **limit_columns(api_key.limits),
    }


def limit_columns(limits: UsageLimits) -> dict[str, int | None]:
    """The columns of limits."""
    return {each.name: getattr(limits, each.name) for each in fields(UsageLimits)}


def _limits(row: Row[Any]) -> UsageLimits:
    return UsageLimits(**{each.name: getattr(row, each.name) for each in fields(UsageLimits)})


def _account(row: Row[Any]) -> Account:
    return Account(row.account_id, row.display_name, row.create_ms, row.use_cache, row.pays_per_token, _limits(row))


def _record(tx: Transaction, actor: str, action: str, account: Account, before: dict[str, object]) -> None:
    audit.record(
        tx,
        actor=actor,
        action=action,
        account_id=account.account_id,
        resource=account.resource_name,
        changes=changes_between(before, account.facts()),
    )
