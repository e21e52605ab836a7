"""How commands end when they do not succeed; the codes stand in `tidemill.cli`."""

import errno
import json
import os
import sys
from typing import NoReturn

import typer

from tidemill.errors import NoSessionError, TidemillError, UnreachableError

FAILED = 1
EXTRA_MISSING = 3
UNREACHABLE = 4
INTERRUPTED = 130

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

JSON_KEY = "tidemill.json"
"""Where a command's context keeps whether it was called with --json."""

_HINTS: dict[type[TidemillError], str] = {
    NoSessionError: "Or leave out --no-session.",
}


def end_with(error: TidemillError, *, as_json: bool) -> NoReturn:
    """Say what went wrong, with a hint, and end the command."""
    if as_json:
        found: dict[str, str | float] = {
            "reason": error.reason or error.code.name,
            "message": str(error),
            "field": error.field,
        }
        if error.retry_after is not None:
            found["retry_after_seconds"] = error.retry_after.total_seconds()
        if error.request_id:
            found["request_id"] = error.request_id
        _print_json(found)
    else:
        hint = next((text for kind, text in _HINTS.items() if isinstance(error, kind)), "")
        typer.echo(f"Error: {error} {hint}".rstrip(), err=True)
    raise typer.Exit(UNREACHABLE if isinstance(error, UnreachableError) else FAILED)


def end_with_usage(error: typer.TyperException) -> NoReturn:
    """Say in JSON which word of the command line was wrong, and end the command."""
    parameter = getattr(error, "param", None)
    named = parameter.name if parameter is not None else getattr(error, "option_name", "")
    field = named or getattr(error, "param_hint", None) or ""
    _print_json({"reason": "USAGE", "message": error.format_message(), "field": field.lstrip("-").replace("-", "_")})
    sys.exit(error.exit_code)


def end_with_broken_stream(error: OSError) -> NoReturn:
    """Say that something could not be read or written, and end the command; a pipe that nobody reads is no news."""
    if error.errno != errno.EPIPE:
        subject = error.filename or ("standard output" if error.errno in _DISK_ERRORS else "")
        says = f"{subject} cannot be used: {error.strerror or error}" if subject else str(error)
        typer.echo(f"Error: {says}.", err=True)
    # What is still buffered for it must not fail once more when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(FAILED)


def _print_json(found: dict[str, str | float]) -> None:
    typer.echo(json.dumps({"error": found}, ensure_ascii=False), err=True)
