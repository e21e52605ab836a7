"""Units of work that let a generation with a request id run once: a note before its first text, then its usage."""

import json
from dataclasses import asdict

from tidemill_services.domain.errors import GenerationEndedError, GenerationLostError
from tidemill_services.domain.generation import Usage
from tidemill_services.store.database import Transaction
from tidemill_services.store.requests import RequestKey, find_response, save_response

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


def note_begin(tx: Transaction, key: RequestKey) -> None:
    """Note that it runs. Raises as `check_unknown` does."""
    check_unknown(tx, key)
    save_response(tx, key, _RUNS)


def note_end(tx: Transaction, key: RequestKey, usage: Usage) -> None:
    """Note what it used."""
    save_response(tx, key, json.dumps(asdict(usage)).encode())
