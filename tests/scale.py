"""How much the strain tests do: a short form in `make test`, the full counts in `make fault`."""

import os

IS_FULL = os.environ.get("TIDEMILL_STRAIN") == "full"


def count(short: int, *, full: int) -> int:
    """How often to do a thing."""
    return full if IS_FULL else short


def bound(seconds: float, *, busy: float) -> float:
    """What must hold on a machine that does nothing else, as `make fault` asks for; on a busy one, `busy`."""
    return seconds if IS_FULL else busy
