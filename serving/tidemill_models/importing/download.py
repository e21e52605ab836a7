"""Fetches one file over HTTP into a folder; what came before a cut, of the network or of this process, is kept."""

import fcntl
import hashlib
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tidemill_models.errors import ModelImportError

NUM_TRIES = 5  # one after the other without a single byte
PAUSE_SECONDS = 1.0
_CHUNK_BYTES = 1 << 16  # what a cut may lose
_SHA256 = re.compile(r"[0-9a-f]{64}")

OnBytes = Callable[[str, int, int], None]
"""Called with a file's name, the bytes of it that are here, and how many it has."""


def download(
    session: Any, url: str, headers: dict[str, str], target: Path, *, size: int, etag: str, on_bytes: OnBytes
) -> Path:
    """Fetch `url` to `target`, going on where an earlier try stopped; `session` is the hub library's HTTP client.

    An `etag` of 64 hex digits is the content's SHA-256, and is checked. Raises ModelImportError.
    """
    if target.is_file() and target.stat().st_size == size:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ModelImportError(f"{target.name} is being fetched by another import already.") from None
        _fetch(session, url, headers, file, size=size, on_bytes=lambda done: on_bytes(target.name, done, size))
    if _SHA256.fullmatch(etag) and _sha256(part) != etag:
        part.unlink()
        raise ModelImportError(f"{target.name} came damaged, and was thrown away: try again.")
    return part.rename(target)


def _fetch(
    session: Any, url: str, headers: dict[str, str], file: Any, *, size: int, on_bytes: Callable[[int], None]
) -> None:
    tries = 0
    while (done := file.tell()) < size:
        try:
            _append(session, url, headers, file, on_bytes)
        except Exception as error:  # of a transport that the hub's library chooses
            if file.tell() > done:
                tries = 0
            tries += 1
            if tries >= NUM_TRIES or _is_final(error):
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            if file.tell() <= done:
                break
    if (done := file.tell()) != size:
        file.truncate(0)
        raise ModelImportError(f"The server sent {done} bytes of a file that has {size}: try again.")


def _append(session: Any, url: str, headers: dict[str, str], file: Any, on_bytes: Callable[[int], None]) -> None:
    """One request for what is missing; a server that sends the whole anew is taken at its word."""
    start = file.tell()
    ranged = headers | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with session.stream("GET", url, headers=ranged, follow_redirects=True) as response:
        response.raise_for_status()
        if start and response.status_code != 206:
            file.truncate(0)
            file.seek(0)
        for chunk in response.iter_raw(chunk_size=_CHUNK_BYTES):
            file.write(chunk)
            file.flush()
            on_bytes(file.tell())


def _is_final(error: Exception) -> bool:
    """Whether the server refused, so that asking again is no use."""
    with suppress(AttributeError):
        return bool(400 <= error.response.status_code < 500)  # type: ignore[attr-defined]
    return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
