"""How many sessions may be open: counted where one is added, so that it is exact in any number of processes."""

from sqlalchemy import ColumnElement, func, select

from tidemill_services.domain.errors import LimitReachedError
from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import accounts, api_keys, sessions

_LOOK_AGAIN_SECONDS = 5.0


def require_place(tx: Transaction, account_id: str, key_id: str) -> None:
    """Raise LimitReachedError when the account, or the key, has as many open sessions as it may."""
    for subject, query, is_theirs in (
        (
            "account",
            select(accounts.c.concurrent_sessions).where(accounts.c.account_id == account_id),
            sessions.c.account_id == account_id,
        ),
        ("key", select(api_keys.c.concurrent_sessions).where(api_keys.c.key_id == key_id), sessions.c.key_id == key_id),
    ):
        limit = tx.connection.execute(query).scalar_one_or_none()
        if limit is not None and _count_open(tx, is_theirs) >= limit:
            raise LimitReachedError(
                f"The {subject} may have {limit:,} open sessions, and has: stop one first.",
                retry_after_seconds=_LOOK_AGAIN_SECONDS,
            )


def _count_open(tx: Transaction, is_theirs: ColumnElement[bool]) -> int:
    query = select(func.count()).select_from(sessions).where(is_theirs, sessions.c.end_ms.is_(None))
    return tx.connection.execute(query).scalar_one()
