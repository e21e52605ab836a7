"""Whether the files of a model package are, to the bit, those that its manifest names."""

import hashlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

from tidemill_models.errors import ModelPackageError
from tidemill_models.manifest_tables import MANIFEST_NAME
from tidemill_models.package import ModelPackage
from tidemill_models.package_specs import FileDigest

_PIECE_BYTES = 8 << 20  # that are hashed at once: between two pieces other threads may have the interpreter


class DigestsInReading:
    """The bytes of a package, which a thread reads and compares with its digests from now on: it leaves Python free."""

    def __init__(self, package: ModelPackage, *, mapped: bool = False) -> None:
        """Files that are `mapped` are hashed in one go, which waits for Python once a file instead of once a piece.

        It is for a process that imports and parses meanwhile, and may end where a file is cut off as it is read.
        """
        self._package = package
        self._sha256 = _mapped_sha256 if mapped else _sha256
        self._done: Future[None] = Future()
        threading.Thread(target=self._run, name="tidemill-digests", daemon=True).start()

    def until_right(self) -> None:
        """Wait until every byte was read. Raises ModelPackageError where a file was changed."""
        self._done.result()

    def _run(self) -> None:
        try:
            for name, path in self._package.paths.items():
                _check_digest(path, self._package.manifest.files[name], self._sha256)
            self._done.set_result(None)
        except Exception as error:  # noqa: BLE001 -- whoever waits hears of it
            self._done.set_exception(error)


def refuse_unnamed_files(package: ModelPackage) -> None:
    """Raises ModelPackageError where the folder holds what [files] does not name."""
    for name in _file_names(package.folder):
        if name not in package.manifest.files:
            raise ModelPackageError("is not named in [files]", path=str(package.folder / name))


def digest_files(folder: Path) -> dict[str, FileDigest]:
    """What [files] must say of a folder: each file but model.toml, by name. For whoever writes a package."""
    return {
        name: FileDigest(sha256=_sha256(folder / name), bytes=(folder / name).stat().st_size)
        for name in _file_names(folder)
    }


def _file_names(folder: Path) -> Iterator[str]:
    """All that lies in the folder and below, sorted: files, links and whatever else is no folder."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted(files + links):
            relative = (Path(parent) / name).relative_to(folder).as_posix()
            if relative != MANIFEST_NAME:
                yield relative


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        room = memoryview(bytearray(min(_PIECE_BYTES, path.stat().st_size + 1)))
        while size := file.readinto(room):
            digest.update(room[:size])
    return digest.hexdigest()


def _mapped_sha256(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        if not path.stat().st_size:
            return hashlib.sha256().hexdigest()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return hashlib.sha256(content).hexdigest()


def _check_digest(path: Path, expected: FileDigest, sha256_of: Callable[[Path], str]) -> None:
    try:
        sha256 = sha256_of(path)
    except OSError as error:
        raise ModelPackageError(f"cannot be read: {error.strerror}", path=str(path)) from error
    if sha256 != expected.sha256:
        raise ModelPackageError(f"was changed: its SHA-256 is {sha256}, not {expected.sha256}", path=str(path))
