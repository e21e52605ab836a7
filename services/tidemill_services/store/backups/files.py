"""A file that is there whole or not at all, and that only its owner can read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tidemill_services.domain.errors import CannotStartError


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Write a file, 0600, under another name beside `path`; at the end it is synced to disk and takes the name.

    Raises CannotStartError for a file that is there and may not be overwritten, and for what the disk says.
    """
    if not overwrite and path.exists():
        raise CannotStartError(f"{path} is there already: name another file, or say --force.")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise CannotStartError(f"{path} cannot be written: {error.strerror}.") from error


@contextmanager
def old_file(path: Path) -> Iterator[BinaryIO]:
    """Read a file. Raises CannotStartError for what the disk says."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise CannotStartError(f"{path} cannot be read: {error.strerror}.") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
