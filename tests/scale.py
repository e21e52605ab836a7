"""How much the strain tests do: a short form in `make test`, the full counts in `make fault`."""

import os

IS_FULL = os.environ.get("TIDEMILL_STRAIN") == "full"


def count(short: int, *, full: int) -> int:
    """How often to do a thing."""
    return full if IS_FULL else short
