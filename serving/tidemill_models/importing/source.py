"""Where a model is imported from: a folder here, or one that is fetched file by file."""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol

from tidemill_models.errors import ModelImportError

_MAX_FILES = 10_000


class Source(Protocol):
    """The files of a model, by their names with `/` in them."""

    @property
    def title(self) -> str:
        """What it is called in sentences."""

    @property
    def files(self) -> Mapping[str, int]:
        """Each file's size in bytes. Raises ModelImportError."""

    def fetch(self, name: str) -> Path:
        """A path where the file can be read, fetched first where it is elsewhere. Raises ModelImportError."""

    @property
    def is_shared(self) -> bool:
        """Whether what `fetch` gives is kept unchanged by someone else, so that a hard link to it is a copy."""


class FolderSource:
    """A folder on this machine. Links that lead out of it are refused, and so is what is no regular file."""

    is_shared = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.title = str(folder)

    @cached_property
    def files(self) -> Mapping[str, int]:
        """Regular files, also behind links."""
        if self._folder.suffix == ".gguf":
            raise ModelImportError(
                f"{self._folder} is GGUF, which is not served: name the folder of the checkpoint that it was made of, "
                "and --convert."
            )
        if not self._folder.is_dir():
            raise ModelImportError(f"{self._folder} is not a folder. Name a folder, or hf:owner/name for a hub's.")
        found: dict[str, int] = {}
        for parent, folders, files in os.walk(self._folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                path = Path(parent) / name
                if path.is_file():
                    found[path.relative_to(self._folder).as_posix()] = path.stat().st_size
                if len(found) > _MAX_FILES:
                    raise ModelImportError(f"{self._folder} holds more than {_MAX_FILES} files: name a model's folder.")
        return found

    def fetch(self, name: str) -> Path:
        """The file itself."""
        path = self._folder / name
        try:
            resolved = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
            raise ModelImportError(f"{path} cannot be read: {error}.") from error
        if not resolved.is_relative_to(self._root):
            raise ModelImportError(f"{path} leads outside the folder, to {resolved}: put the file itself there.")
        if not resolved.is_file():
            raise ModelImportError(f"{path} is not a regular file.")
        return resolved

    @cached_property
    def _root(self) -> Path:
        """What links may lead into: the folder; for a snapshot in a hub's cache, the repository's folder there."""
        folder = self._folder.resolve()
        is_snapshot = folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--")
        return folder.parents[1] if is_snapshot else folder
