"""Units of work that make a repeated request answer as the first one did. They run in the transaction of its effect."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import and_, bindparam, delete, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert  # SQLite writes ON CONFLICT alike

from tidemill_services.domain.errors import FieldInvalidError, RequestIdReusedError
from tidemill_services.store.database import Transaction
from tidemill_services.store.prepared import Prepared, Values
from tidemill_services.store.tables import requests

MAX_REQUEST_ID_LENGTH = 128
KEPT_MS = 24 * 3_600_000
NUM_FORGOTTEN_AT_ONCE = 500


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


# Built once: building a statement costs more than running it.
_IS_KEY = and_(
    requests.c.account_id == bindparam("key_account_id"),
    requests.c.rpc == bindparam("key_rpc"),
    requests.c.request_id == bindparam("key_request_id"),
)
_FIND = select(requests.c.body_hash, requests.c.response, requests.c.create_ms).where(_IS_KEY)
_PRIMARY_KEY = (requests.c.account_id, requests.c.rpc, requests.c.request_id)
_INSERT = insert(requests)
_SAVE = Prepared(
    _INSERT.on_conflict_do_update(
        index_elements=_PRIMARY_KEY,
        set_={name: _INSERT.excluded[name] for name in ("body_hash", "response", "create_ms")},
        where=requests.c.create_ms <= bindparam("expired_ms"),
    )
)
_REPLACE = Prepared(update(requests).where(_IS_KEY).values(response=bindparam("new_response")))
_FORGET = delete(requests).where(_IS_KEY)
_FORGET_EXPIRED = delete(requests).where(
    tuple_(*_PRIMARY_KEY).in_(
        select(*_PRIMARY_KEY)
        .where(requests.c.create_ms <= bindparam("expired_ms"))
        .order_by(requests.c.create_ms)
        .limit(NUM_FORGOTTEN_AT_ONCE)
    )
)


def find_response(tx: Transaction, key: RequestKey) -> bytes | None:
    """Return what the same request was answered within 24 hours, or None: then do it and call `save_response`.

    Raises RequestIdReusedError when the id came with another body.
    """
    row = tx.connection.execute(_FIND, _named(key)).one_or_none()
    if row is None or row.create_ms + KEPT_MS <= tx.now_ms:
        return None
    if bytes(row.body_hash) != key.body_hash:
        raise RequestIdReusedError(field="request_id")
    return bytes(row.response)


def save_response(tx: Transaction, key: RequestKey, response: bytes) -> bool:
    """Keep an answer for its repeats; False, and nothing is done, when the request has one that has not expired."""
    row: Values = {
        "account_id": key.account_id,
        "rpc": key.rpc,
        "request_id": key.request_id,
        "body_hash": key.body_hash,
        "response": response,
        "create_ms": tx.now_ms,
        "expired_ms": tx.now_ms - KEPT_MS,
    }
    return _SAVE.run(tx.connection, row).rowcount > 0


def replace_responses(tx: Transaction, responses: Iterable[tuple[RequestKey, bytes]]) -> None:
    """Give requests other answers than those that are kept, for as long as those."""
    rows: list[Values] = [{**_named(key), "new_response": response} for key, response in responses]
    if rows:
        _REPLACE.run_for_all(tx.connection, rows)


def forget_expired(tx: Transaction) -> int:
    """Forget some of the answers that nobody is told any more; return how many. There may be more when it is many."""
    return tx.connection.execute(_FORGET_EXPIRED, {"expired_ms": tx.now_ms - KEPT_MS}).rowcount


def forget_response(tx: Transaction, key: RequestKey) -> None:
    """Let the request be done anew, whatever its body."""
    tx.connection.execute(_FORGET, _named(key))


def _named(key: RequestKey) -> dict[str, str]:
    return {"key_account_id": key.account_id, "key_rpc": key.rpc, "key_request_id": key.request_id}
