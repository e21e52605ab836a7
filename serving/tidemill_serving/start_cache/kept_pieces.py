"""What was read out of tokenizers, so that the next start need not read these again."""

import hashlib
import json
import logging
import os
from contextlib import suppress
from pathlib import Path

from tidemill_models.package import ModelPackage
from tidemill_models.token_pieces import TokenPieces

_log = logging.getLogger(__name__)
_MAX_FILES = 100
_FORMAT = 1  # to be counted up when pieces are made or kept in another way


class KeptPieces:
    """A folder with a file for each tokenizer, named by the tokenizer's digest. Any number of processes may use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, package: ModelPackage) -> TokenPieces | None:
        """Those of this package's tokenizer; None without them. What is damaged is removed."""
        file = self._file(package)
        try:
            pieces = TokenPieces.from_bytes(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("the kept pieces %s are read anew: %s", file.name, error)
            with suppress(OSError):
                file.unlink()
            return None
        with suppress(OSError):  # a read-only folder has no least used
            os.utime(file)
        return pieces

    def keep(self, package: ModelPackage, pieces: TokenPieces) -> None:
        """Write them for the next start, as a whole or not at all."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = self._folder / f".making-{os.getpid()}"
            try:
                draft.write_bytes(pieces.to_bytes())
                draft.rename(self._file(package))
            finally:
                draft.unlink(missing_ok=True)
            for old in sorted(self._folder.iterdir(), key=_last_use)[:-_MAX_FILES]:
                old.unlink(missing_ok=True)
        except OSError as error:
            _log.info("the tokenizer's pieces cannot be kept, so it is read at each start: %s", error)

    def _file(self, package: ModelPackage) -> Path:
        tokenizer = package.manifest.files[package.decoder.tokenizer]
        made_from = json.dumps([_FORMAT, tokenizer.sha256])
        return self._folder / hashlib.sha256(made_from.encode()).hexdigest()[:40]


def _last_use(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
