"""Units of work that make a repeated request answer as the first one did. They run in the transaction of its effect."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, insert, select, tuple_

from tidemill_services.domain.errors import FieldInvalidError, RequestIdReusedError
from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import requests

MAX_REQUEST_ID_LENGTH = 128
KEPT_MS = 24 * 3_600_000
_NUM_FORGOTTEN_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What tells a repeat from another request. `body_hash` is the SHA-256 of the message in its deterministic form."""

    account_id: str
    rpc: str
    request_id: str
    body_hash: bytes

    def __post_init__(self) -> None:
        """Raise FieldInvalidError unless the id can be kept."""
        if not 1 <= len(self.request_id) <= MAX_REQUEST_ID_LENGTH or not self.request_id.isprintable():
            raise FieldInvalidError(
                f"request_id must be 1 to {MAX_REQUEST_ID_LENGTH} printable characters.", field="request_id"
            )


def find_response(tx: Transaction, key: RequestKey) -> bytes | None:
    """Return what the same request was answered within 24 hours, or None: then do it and call `save_response`.

    Raises RequestIdReusedError when the id came with another body.
    """
    row = tx.connection.execute(select(requests).where(is_of(key))).one_or_none()
    if row is None or row.create_ms + KEPT_MS <= tx.now_ms:
        return None
    if bytes(row.body_hash) != key.body_hash:
        raise RequestIdReusedError(field="request_id")
    return bytes(row.response)


def save_response(tx: Transaction, key: RequestKey, response: bytes) -> None:
    """Keep an answer for its repeats, in place of an expired one; forget a few that have expired."""
    tx.connection.execute(delete(requests).where(is_of(key)))
    tx.connection.execute(
        insert(requests).values(
            account_id=key.account_id,
            rpc=key.rpc,
            request_id=key.request_id,
            body_hash=key.body_hash,
            response=response,
            create_ms=tx.now_ms,
        )
    )
    primary_key = tuple_(requests.c.account_id, requests.c.rpc, requests.c.request_id)
    expired = (
        select(requests.c.account_id, requests.c.rpc, requests.c.request_id)
        .where(requests.c.create_ms <= tx.now_ms - KEPT_MS)
        .order_by(requests.c.create_ms)
        .limit(_NUM_FORGOTTEN_AT_ONCE)
    )
    tx.connection.execute(delete(requests).where(primary_key.in_(expired)))


def is_of(key: RequestKey) -> ColumnElement[bool]:
    """The row of this key, whatever its body."""
    return and_(
        requests.c.account_id == key.account_id,
        requests.c.rpc == key.rpc,
        requests.c.request_id == key.request_id,
    )
