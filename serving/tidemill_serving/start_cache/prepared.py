"""Copies of graphs that were optimised and whose weights were packed for this processor, ready to be mapped.

One folder for each, named by what it was made from, by whom, and for which processor. It appears whole, by a rename,
and is never changed. What was touched since, or ended the process that loaded it, is removed, and the original is
served.
"""

import fcntl
import hashlib
import json
import logging
import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill_serving.start_cache.file_identity import identity_of

_log = logging.getLogger(__name__)
GRAPH, WEIGHTS, MADE = "graph.onnx", "weights.bin", "made.json"
_DRAFT = ".making-"
_FORMAT = 2  # to be counted up when copies are made in another way


@dataclass(frozen=True, slots=True)
class PreparedGraphs:
    """The folder of all copies. Any number of processes may work in it."""

    folder: Path
    max_bytes: int

    def of(self, package_digest: str, runtime: str) -> "PreparedGraph":
        """The copy of a package's graph for a runtime (its name and version), made or not."""
        made_from = json.dumps([_FORMAT, package_digest, runtime, _processor()])
        return PreparedGraph(self.folder, hashlib.sha256(made_from.encode()).hexdigest()[:40])

    def trim(self) -> None:
        """Remove those that were not used for the longest time, until the rest is small enough."""
        kept = 0
        for copy in sorted(self._copies(), key=_last_use, reverse=True):
            kept += _num_bytes(copy)
            if kept > self.max_bytes:
                _log.info("the prepared graph %s makes room", copy.name)
                _remove_folder(copy)

    def clear_unfinished(self) -> None:
        """Remove what makers that ended too soon have left; only whoever is the one maker may."""
        for left in self.folder.glob(f"{_DRAFT}*"):
            _remove_folder(left)
            with suppress(OSError):  # a mark
                left.unlink(missing_ok=True)

    @contextmanager
    def as_the_one_maker(self) -> Iterator[bool]:
        """Whether this process may make copies: one at a time does. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "maker.lock").open("w") as lock:
            yield _try_lock(lock.fileno())

    def _copies(self) -> list[Path]:
        return [copy for copy in self.folder.iterdir() if not copy.name.startswith(_DRAFT) and (copy / MADE).is_file()]


@dataclass(frozen=True, slots=True)
class PreparedGraph:
    """The copy of one graph, made or not."""

    folder: Path  # of all copies
    key: str

    @property
    def graph(self) -> Path:
        """The graph; its weights lie beside it."""
        return self.folder / self.key / GRAPH

    def is_made(self) -> bool:
        """Whether it is there, as it was made; what was touched since is removed."""
        made = self.folder / self.key / MADE
        try:
            noted = json.loads(made.read_bytes())
            if noted == self._identities(self.folder / self.key):
                with suppress(OSError):  # a read-only folder has no least used
                    os.utime(made)
                return True
        except FileNotFoundError:
            if not made.parent.exists():
                return False
        except (OSError, ValueError) as error:
            _log.warning("the prepared graph %s cannot be read: %s", self.key, error)
        self.remove("it was changed since it was made")
        return False

    @contextmanager
    def being_loaded(self) -> Iterator[bool]:
        """Note that it is loaded, for as long as that takes; yields whether it may be.

        What a process leaves that ended meanwhile tells the next one that this copy may have ended it.
        """
        mark = self.folder / f"{self.key}.loading-{os.getpid()}"
        try:
            if any(_is_left(other) for other in self.folder.glob(f"{self.key}.loading-*")):
                self.remove("a process ended while it was loaded")
                yield False
                return
            file = mark.open("w")
        except OSError:  # a read-only folder: whoever made it so vouches for what is in it
            yield True
            return
        with file:
            _try_lock(file.fileno())
            try:
                yield True
            finally:
                mark.unlink(missing_ok=True)

    def remove(self, reason: str) -> None:
        """It is not to be trusted."""
        _log.warning("the prepared graph %s is removed: %s", self.key, reason)
        _remove_folder(self.folder / self.key)
        for mark in self.folder.glob(f"{self.key}.loading-*"):
            with suppress(OSError):
                mark.unlink()

    @contextmanager
    def in_making(self) -> Iterator["PreparedGraph"]:
        """A draft to be written and sealed, which becomes this copy at the end, if that is reached. Raises OSError."""
        draft = PreparedGraph(self.folder, f"{_DRAFT}{secrets.token_hex(8)}")
        draft.graph.parent.mkdir(mode=0o700)
        try:
            yield draft
            draft.graph.parent.rename(self.folder / self.key)
        finally:
            _remove_folder(draft.graph.parent)

    def seal(self) -> None:
        """Its files are written: note what they are. Raises OSError."""
        here = self.folder / self.key
        (here / MADE).write_text(json.dumps(self._identities(here)))
        for name in (GRAPH, WEIGHTS, MADE):
            with (here / name).open("rb") as file:
                os.fsync(file.fileno())

    def _identities(self, folder: Path) -> dict[str, Any]:
        return {name: identity_of(folder / name) for name in (GRAPH, WEIGHTS)}


def _processor() -> str:
    """What kernels choose by: the processor's name and what it can."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return platform.machine() + "".join(line for line in lines if line.startswith(wanted))


def _last_use(copy: Path) -> float:
    try:
        return (copy / MADE).stat().st_mtime
    except OSError:
        return 0.0


def _remove_folder(folder: Path) -> None:
    """A copy's, which holds files alone; `shutil` would be imported at every start, for nothing in nearly all."""
    with suppress(OSError):
        for file in folder.iterdir():
            with suppress(OSError):
                file.unlink()
        folder.rmdir()


def _num_bytes(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in folder.iterdir())
    except OSError:
        return 0


def _is_left(mark: Path) -> bool:
    """Whether the process that made this mark has ended: it held the lock for as long as it lived."""
    try:
        with mark.open("r+") as file:
            return _try_lock(file.fileno())
    except FileNotFoundError:
        return False


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
