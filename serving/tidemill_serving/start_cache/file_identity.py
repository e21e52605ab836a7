"""Whether a file is still the one that was read: by what the file system says of it, without reading it again."""

import time
from pathlib import Path

SETTLED_SECONDS = 2.0  # coarser than any file system's clock

Identity = list[int]  # as JSON keeps it


def identity_of(path: Path) -> Identity:
    """Device, inode, size, and when its content and its entry changed last.

    Nobody but root can change a file's content and leave the last of these as it was. Raises OSError.
    """
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def is_settled(identity: Identity, *, now: float | None = None) -> bool:
    """Whether a change after `identity` was taken would show: one in the same tick of the clock would not."""
    return (time.time() if now is None else now) - identity[-1] / 1e9 > SETTLED_SECONDS
