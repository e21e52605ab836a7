"""A folder in which a package is made until it is whole. What a process that died left goes with the next import."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidemill_models.errors import ModelImportError

_LOCK = "lock"
_SPARE_BYTES = 64 << 20  # of the disk, left free


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """A new folder below `parent`, removed with all that is left in it at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(dir=parent))
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def check_space(folder: Path, num_bytes: int) -> None:
    """Raises ModelImportError where the disk below `folder` has no room for so much."""
    free = shutil.disk_usage(folder).free
    if num_bytes + _SPARE_BYTES > free:
        needed, left = f"{num_bytes / 1e9:,.2f} GB", f"{free / 1e9:,.2f} GB"
        raise ModelImportError(f"There is no room for it: {needed} are needed in {folder}, and {left} are free.")


def put_in_place(made: Path, target: Path, aside: Path) -> None:
    """Rename `made` to `target`; what was there goes to `aside` first and comes back where that fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(aside)
    try:
        made.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.iterdir():
        try:
            with (folder / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # another import is at work there, or has only just made its folder
            continue
