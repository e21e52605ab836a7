"""The platform's secret: 32 bytes in a file that only its owner may read."""

import os
import secrets
import stat
import tempfile
from pathlib import Path

from tidemill_services.domain.errors import CannotStartError

NUM_BYTES = 32


def read_or_create_secret(path: Path) -> bytes:
    """Return the secret in `path`; make the file, 0600, when there is none. Raises CannotStartError."""
    try:
        if not path.exists():
            _create(path)
        return _read(path)
    except OSError as error:
        raise CannotStartError(f"The secret file {path} cannot be read or made: {error.strerror}.") from error


def _create(path: Path) -> None:
    """Write the file whole or not at all; of several processes that do, one wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(NUM_BYTES))
            file.flush()
            os.fsync(descriptor)
        os.link(draft, path)
    except FileExistsError:
        return  # another process was first
    finally:
        Path(draft).unlink()


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        secret = file.read(NUM_BYTES + 1)
    if mode & 0o077:
        raise CannotStartError(
            f"The secret file {path} may be read by others (mode {mode:04o}): run `chmod 600 {path}`. "
            "If others have read it, remove the file and make new API keys."
        )
    if len(secret) != NUM_BYTES:
        raise CannotStartError(
            f"The secret file {path} does not hold {NUM_BYTES} bytes: restore it, no API key works without it."
        )
    return secret
