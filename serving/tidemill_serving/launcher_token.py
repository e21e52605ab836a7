"""The launcher's token: 256 random bits that every call to this replica must carry."""

import os
import re
from pathlib import Path

TOKEN_PATTERN = re.compile(r"[0-9a-f]{64}", re.ASCII)


class TokenInvalidError(Exception):
    """The launcher's token must be 64 lower-case hexadecimal digits."""


def token_from_fd(fd: int) -> str:
    """Read the token from a pipe that we inherited, and close it; its writer need not have closed its end."""
    raw = b""
    with os.fdopen(fd, "rb", buffering=0) as pipe:
        while len(raw) < 64 and (more := pipe.read(64 - len(raw))):
            raw += more
    return _checked(raw)


def token_from_file(path: Path) -> str:
    """Read the token from a secret's file; white space around it is allowed."""
    with path.open("rb") as file:
        return _checked(file.read(1024).strip())


def _checked(raw: bytes) -> str:
    token = raw.decode("ascii", errors="replace")
    if not TOKEN_PATTERN.fullmatch(token):
        raise TokenInvalidError(TokenInvalidError.__doc__)
    return token
