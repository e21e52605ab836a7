"""Units of work on accounts and their keys."""

import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, select, update

from tidemill_services.domain.api_key import NUM_RANDOM_BYTES, ApiKey, Role, format_api_key, hash_api_key
from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import accounts, api_keys


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays."""

    account_id: str
    display_name: str
    create_ms: int


def create_account(tx: Transaction, account_id: str, display_name: str) -> Account:
    """Make an account; the one that is there under this id is returned as it is."""
    existing = find_account(tx, account_id)
    if existing is not None:
        return existing
    account = Account(account_id, display_name, tx.now_ms)
    tx.connection.execute(
        insert(accounts).values(account_id=account_id, display_name=display_name, create_ms=tx.now_ms)
    )
    return account


def find_account(tx: Transaction, account_id: str) -> Account | None:
    """Return the account, or None."""
    row = tx.connection.execute(select(accounts).where(accounts.c.account_id == account_id)).one_or_none()
    return None if row is None else Account(row.account_id, row.display_name, row.create_ms)


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
) -> tuple[ApiKey, str]:
    """Make a key of an account. Returns its record and the key itself, which is stored nowhere."""
    secret = format_api_key(secrets.token_bytes(NUM_RANDOM_BYTES))
    api_key = ApiKey(
        key_id=secrets.token_hex(8),
        account_id=account_id,
        display_name=display_name,
        secret_hash=hash_api_key(platform_secret, secret),
        role=role,
        default_model=default_model,
        create_ms=tx.now_ms,
        auto_session=auto_session,
        expire_ms=expire_ms,
    )
    tx.connection.execute(
        insert(api_keys).values(
            key_id=api_key.key_id,
            account_id=account_id,
            display_name=display_name,
            secret_hash=api_key.secret_hash,
            role=role.value,
            default_model=default_model,
            auto_session=auto_session,
            create_ms=tx.now_ms,
            expire_ms=expire_ms,
        )
    )
    return api_key, secret


def set_auto_session(tx: Transaction, key_id: str, *, auto_session: bool) -> None:
    """Say whether the OpenAI door opens sessions of a key by itself."""
    tx.connection.execute(update(api_keys).where(api_keys.c.key_id == key_id).values(auto_session=auto_session))


def find_key_by_hash(tx: Transaction, secret_hash: bytes) -> ApiKey | None:
    """Return the key under this hash, if it is valid now; None for unknown, expired and revoked ones."""
    row = tx.connection.execute(select(api_keys).where(api_keys.c.secret_hash == secret_hash)).one_or_none()
    if row is None:
        return None
    api_key = _api_key(row)
    return api_key if api_key.matches(secret_hash) and api_key.is_valid(tx.now_ms) else None


def _api_key(row: Row[Any]) -> ApiKey:
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
    )
