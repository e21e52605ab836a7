"""A repeated request answers as the first one did: the answer is kept in the transaction of its effect."""

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from tidemill_services.identity import Caller
from tidemill_services.store.database import Transaction
from tidemill_services.store.requests import RequestKey, find_response, save_response

Response = TypeVar("Response", bound=Message)


def request_key(caller: Caller, rpc: str, request: Message, request_id: str) -> RequestKey | None:
    """What tells a repeat of this request from another one; None when the caller sent no request id."""
    if not request_id:
        return None
    body = request.SerializeToString(deterministic=True)
    return RequestKey(caller.account_id, rpc, request_id, hashlib.sha256(body).digest())


def once(
    tx: Transaction,
    key: RequestKey | None,
    response_type: type[Response],
    effect: Callable[[Transaction], Response],
    *,
    left_out: Sequence[str] = (),
) -> Response:
    """A unit of work: answer from the first time, or have the effect and keep its answer.

    The fields `left_out` are stored nowhere: the answer to a repeat is without them.
    """
    if key is None:
        return effect(tx)
    kept = find_response(tx, key)
    if kept is not None:
        return response_type.FromString(kept)
    response = effect(tx)
    repeated = response_type.FromString(response.SerializeToString())
    for name in left_out:
        repeated.ClearField(name)
    save_response(tx, key, repeated.SerializeToString(deterministic=True))
    return response
