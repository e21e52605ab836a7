"""Files that are mapped to be read, in large pages where the kernel has them for files: all who map one share it."""

import ctypes
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MADV_POPULATE_READ = 22  # Linux 5.14; Python has no name for it yet
_PIECE_BYTES = 16 << 20  # several large pages
_libc = ctypes.CDLL(None)  # whose calls let go of the GIL: reading gigabytes must not stop all else
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def mapped_file(file: Path) -> NDArray[np.uint8]:
    """The file's bytes. Nothing is read yet; the mapping lives as long as a view of it does.

    Raises OSError; ValueError where the file is empty.
    """
    with file.open("rb") as opened:
        return np.frombuffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def fetch(arrays: Iterable[NDArray[Any]]) -> None:
    """Have all of mapped arrays in memory, each page of them known, and large where it can be: no run waits for one."""
    wanted = list(arrays)
    for array in wanted:  # before any is read: a large page may hold several
        _advise(array, mmap.MADV_HUGEPAGE)
    for array in wanted:
        if not _advise(array, _MADV_POPULATE_READ):
            _advise(array, mmap.MADV_WILLNEED)


def leave_small(array: NDArray[Any]) -> None:
    """Of a mapped array bits are read here and there: a large page around each would only look like use of memory."""
    _advise(array, mmap.MADV_NOHUGEPAGE)


def let_go(array: NDArray[Any]) -> None:
    """It was read through once: its pages no longer count as this process' memory. It may still be read."""
    _advise(array, mmap.MADV_DONTNEED)


def _advise(array: NDArray[Any], advice: int) -> bool:
    first = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    return bool(_libc.madvise(first, array.ctypes.data + array.nbytes - first, advice) == 0)


def rewrite_for_mapping(file: Path) -> None:
    """Write a file anew in pieces so large that the kernel keeps it in large pages. Raises OSError."""
    draft = file.with_suffix(".draft")
    with file.open("rb", buffering=0) as source, draft.open("wb", buffering=0) as target:
        room = memoryview(bytearray(_PIECE_BYTES))
        while size := source.readinto(room):
            target.write(room[:size])
    draft.replace(file)
