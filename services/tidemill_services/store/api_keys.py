"""Units of work that change keys. What a key may become is decided in `domain.api_key`; here it is found and kept."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, func, or_, select, text, update

from tidemill_services.domain.api_key import (
    ApiKey,
    hash_api_key,
    keeps_the_platform,
    platform_secret_id,
    rotated,
)
from tidemill_services.domain.audit import changes_between
from tidemill_services.domain.errors import ApiKeyNotFoundError, LastAdminKeyError
from tidemill_services.domain.session import EndReason
from tidemill_services.store import audit, sessions
from tidemill_services.store.accounts import api_key_of, key_columns, new_secret
from tidemill_services.store.database import Transaction
from tidemill_services.store.paging import page_size_of
from tidemill_services.store.tables import api_keys
from tidemill_services.store.tables import sessions as sessions_table
from tidemill_services.store.topics import KEYS

_IS_ADMIN = text("role = 'ADMIN' AND revoke_ms IS NULL")  # as the partial index has it


@dataclass(frozen=True, slots=True)
class ApiKeyPage:
    """Some of an account's keys, newest first."""

    api_keys: tuple[ApiKey, ...]
    next_page_token: str  # empty on the last page


def get_api_key(tx: Transaction, account_id: str, key_id: str) -> ApiKey:
    """Return a key of this account. Raises ApiKeyNotFoundError."""
    query = select(api_keys).where(api_keys.c.key_id == key_id, api_keys.c.account_id == account_id)
    row = tx.connection.execute(query).one_or_none()
    if row is None:
        raise ApiKeyNotFoundError
    return api_key_of(row)


def list_api_keys(tx: Transaction, account_id: str, *, page_size: int = 0, page_token: str = "") -> ApiKeyPage:
    """Return a page of an account's keys, newest first. Raises FieldInvalidError."""
    size = page_size_of(page_size)
    query = select(api_keys).where(api_keys.c.account_id == account_id)
    if page_token:
        query = query.where(api_keys.c.key_id < page_token)
    found = [api_key_of(row) for row in tx.connection.execute(query.order_by(api_keys.c.key_id.desc()).limit(size + 1))]
    page = tuple(found[:size])
    return ApiKeyPage(page, page[-1].key_id if len(found) > size else "")


def save_api_key(tx: Transaction, before: ApiKey, after: ApiKey, *, actor: str, action: str) -> None:
    """Write a changed key; a key that is revoked takes its open sessions with it. Raises LastAdminKeyError."""
    if after == before:
        return
    if keeps_the_platform(before) and not keeps_the_platform(after):
        _require_another_keeper(tx, before.key_id)
    tx.connection.execute(update(api_keys).where(api_keys.c.key_id == after.key_id).values(**key_columns(after)))
    if after.revoke_ms is not None:
        sessions.stop_sessions_of_keys(tx, [after.key_id], EndReason.REVOKED)
    tx.notify(KEYS)
    audit.record(
        tx,
        actor=actor,
        action=action,
        account_id=after.account_id,
        resource=after.resource_name,
        changes=changes_between(before.facts(), after.facts()),
    )


def set_auto_session(tx: Transaction, account_id: str, key_id: str, *, auto_session: bool) -> None:
    """Say, as the server itself, whether the OpenAI door opens sessions of a key. Raises ApiKeyNotFoundError."""
    before = get_api_key(tx, account_id, key_id)
    save_api_key(tx, before, replace(before, auto_session=auto_session), actor="", action="UpdateApiKey")


def rotate_api_key(
    tx: Transaction, before: ApiKey, platform_secret: bytes, *, overlap_ms: int, actor: str
) -> tuple[ApiKey, str]:
    """Give a key a new secret, hashed under this secret of the platform. Returns its record and the key itself.

    Raises ApiKeyRevokedError, FieldInvalidError.
    """
    secret = new_secret()
    after = rotated(before, hash_api_key(platform_secret, secret), overlap_ms, tx.now_ms)
    save_api_key(tx, before, after, actor=actor, action="RotateApiKey")
    tx.connection.execute(
        update(api_keys).where(api_keys.c.key_id == after.key_id).values(secret_id=platform_secret_id(platform_secret))
    )
    return after, secret


def hash_anew(tx: Transaction, api_key: str, old_platform_secret: bytes, platform_secret: bytes) -> None:
    """Move a key, which its owner has just shown, from the platform's old secret to the new one."""
    old_hash, new_hash = (hash_api_key(secret, api_key) for secret in (old_platform_secret, platform_secret))
    tx.connection.execute(
        update(api_keys)
        .where(api_keys.c.secret_hash == old_hash)
        .values(secret_hash=new_hash, secret_id=platform_secret_id(platform_secret))
    )
    tx.connection.execute(
        update(api_keys).where(api_keys.c.old_secret_hash == old_hash).values(old_secret_hash=new_hash)
    )


def count_under_other_secrets(tx: Transaction, platform_secret: bytes) -> int:
    """Return how many usable keys are not hashed under this secret of the platform."""
    query = (
        select(func.count())
        .select_from(api_keys)
        .where(api_keys.c.revoke_ms.is_(None), api_keys.c.secret_id != platform_secret_id(platform_secret))
    )
    return tx.connection.execute(query).scalar_one()


def end_sessions_of_ended_keys(tx: Transaction) -> int:
    """Stop the open sessions of keys that have expired or were revoked; return how many keys had some."""
    key_ids = keys_with_sessions_to_end(tx)
    sessions.stop_sessions_of_keys(tx, key_ids, EndReason.REVOKED)
    return len(key_ids)


def keys_with_sessions_to_end(tx: Transaction) -> list[str]:
    """Return the keys that are no longer valid and have open sessions."""
    query = (
        select(sessions_table.c.key_id)
        .join(api_keys, api_keys.c.key_id == sessions_table.c.key_id)
        .where(sessions_table.c.end_ms.is_(None), _has_ended(tx))
        .distinct()
    )
    return list(tx.connection.execute(query).scalars())


def ended_keys(tx: Transaction, key_ids: Collection[str]) -> list[str]:
    """Return those of the keys that are no longer valid."""
    query = select(api_keys.c.key_id).where(api_keys.c.key_id.in_(key_ids), _has_ended(tx))
    return list(tx.connection.execute(query).scalars())


def _has_ended(tx: Transaction) -> ColumnElement[bool]:
    return or_(api_keys.c.expire_ms <= tx.now_ms, api_keys.c.revoke_ms <= tx.now_ms)


def _require_another_keeper(tx: Transaction, key_id: str) -> None:
    query = select(api_keys).where(_IS_ADMIN, api_keys.c.key_id != key_id)
    if not any(keeps_the_platform(api_key_of(row)) for row in tx.connection.execute(query)):
        raise LastAdminKeyError
