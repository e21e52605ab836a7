"""The platform's secret: 32 bytes in a file that only its owner may read.

While it is rotated there are two: `secret`, under which keys are hashed from now on, and `secret.old` beside it, under
which keys are still found until their next use. See docs/operations.md.
"""

import os
import secrets
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tidemill_services.domain.errors import CannotStartError

NUM_BYTES = 32


@dataclass(frozen=True, slots=True)
class PlatformSecrets:
    """The platform's secret, and the one before it while it is rotated."""

    current: bytes = field(repr=False)
    old: bytes | None = field(default=None, repr=False)


def read_or_create_secrets(path: Path) -> PlatformSecrets:
    """Return the secret in `path`, made when there is none, and the old one beside it. Raises CannotStartError."""
    current, old = read_or_create_secret(path), _old(path)
    return PlatformSecrets(current, read_or_create_secret(old) if old.exists() else None)


def rotate_secret(path: Path) -> None:
    """Make a new secret and keep the one until now as the old one. Raises CannotStartError."""
    secrets_now = read_or_create_secrets(path)
    if secrets_now.old not in (None, secrets_now.current):  # they are the same when an earlier rotation was cut short
        raise CannotStartError(f"{_old(path)} is there: the last rotation is under way. Finish it first.")
    try:
        _old(path).unlink(missing_ok=True)
        os.link(path, _old(path))
        draft = path.with_name(f".{path.name}.next")
        draft.unlink(missing_ok=True)
        _create(draft)
        draft.replace(path)
    except OSError as error:
        raise CannotStartError(f"The secret file {path} cannot be rotated: {error.strerror}.") from error


def forget_old_secret(path: Path) -> bool:
    """Remove the old secret; keys that are still hashed under it work no more. Returns whether there was one."""
    try:
        _old(path).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CannotStartError(f"{_old(path)} cannot be removed: {error.strerror}.") from error
    return True


def _old(path: Path) -> Path:
    return path.with_name(f"{path.name}.old")


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
