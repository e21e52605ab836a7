"""Units of work that let a generation with a request id run once: a note before its first text, then its usage."""

import json
from collections.abc import Sequence

from tidemill_services.domain.errors import GenerationEndedError, GenerationLostError, TidemillError
from tidemill_services.domain.generation import Usage
from tidemill_services.store.database import Transaction
from tidemill_services.store.requests import RequestKey, find_response, replace_responses, save_response

_RUNS = b""


def check_unknown(tx: Transaction, key: RequestKey) -> None:
    """Return when no generation of this key is known within 24 hours.

    Raises RequestIdReusedError, GenerationEndedError with the usage, and GenerationLostError when no end was noted.
    """
    response = find_response(tx, key)
    if response is None:
        return
    if response == _RUNS:
        raise GenerationLostError
    raise GenerationEndedError(usage=Usage(**json.loads(response)))


def write_notes(
    tx: Transaction, begins: Sequence[RequestKey], ends: Sequence[tuple[RequestKey, Usage]]
) -> list[TidemillError | None]:
    """Note what generations used, and that others run; return for each of these why it must not, or None.

    The reasons are those that `check_unknown` raises.
    """
    replace_responses(tx, ((key, _told(usage)) for key, usage in ends))
    return [_note_begin(tx, key) for key in begins]


def _told(usage: Usage) -> bytes:
    return json.dumps({name: getattr(usage, name) for name in Usage.__dataclass_fields__}).encode()


def _note_begin(tx: Transaction, key: RequestKey) -> TidemillError | None:
    if save_response(tx, key, _RUNS):
        return None
    try:
        check_unknown(tx, key)
    except TidemillError as refusal:
        return refusal
    raise AssertionError("what could not be saved is known")
