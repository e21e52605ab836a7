"""Which packages were checked already, byte by byte, and have not been touched since."""

import hashlib
import json
import logging
import os
from pathlib import Path

from tidemill_models.manifest_tables import MANIFEST_NAME
from tidemill_models.package import ModelPackage
from tidemill_serving.start_cache.file_identity import Identity, identity_of, is_settled

_log = logging.getLogger(__name__)
_MAX_NOTES = 1_000
_FORMAT = 1  # to be counted up when more of a package is checked: all are checked again then


class CheckedPackages:
    """A folder with one empty file for each: its name is the digest of all that was looked at.

    An identity is taken before the check and noted after it, so a change meanwhile is not noted as checked.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def identify(self, package: ModelPackage) -> str:
        """The name of `package` as it lies there now; empty where it was changed just now, or cannot be looked at."""
        try:
            files = {name: identity_of(path) for name, path in package.paths.items()}
            files[MANIFEST_NAME] = identity_of(package.folder / MANIFEST_NAME)
        except OSError:
            return ""
        return _name(package, files) if all(is_settled(identity) for identity in files.values()) else ""

    def has(self, name: str) -> bool:
        """Whether the package of this name was found to be right."""
        return bool(name) and (self._folder / name).is_file()

    def note(self, name: str) -> None:
        """The package of this name is right."""
        if not name:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / name).touch()
            notes = sorted(self._folder.iterdir(), key=lambda note: note.stat().st_mtime_ns)
            for old in notes[:-_MAX_NOTES]:
                old.unlink(missing_ok=True)
        except OSError as error:
            _log.info("that the package is right cannot be noted, so it is checked at each start: %s", error)


def _name(package: ModelPackage, files: dict[str, Identity]) -> str:
    looked_at = [_FORMAT, os.fspath(package.folder), package.digest, files]
    return hashlib.sha256(json.dumps(looked_at, sort_keys=True).encode()).hexdigest()
