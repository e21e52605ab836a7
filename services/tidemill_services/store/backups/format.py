"""The file of a backup: gzip of JSON lines.

    {"format": "tidemill-backup", "version": 1, "revision": "0002", "time_ms": …, "tables": {"accounts": [column, …]}}
    ["accounts", value, …]
    …
    {"rows": {"accounts": 1, …}, "content_sha256": …, "sha256": …}

The rows stand table by table, those that others point at first, each table by its primary key, so that equal contents
give equal rows whichever database they lay in: `content_sha256` is of the lines of rows alone. `sha256` is of every
line before the last one. Integers are exact, bytes are {"base64": …}.
"""

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from gzip import BadGzipFile, GzipFile
from typing import Any, BinaryIO

from tidemill_services.domain.errors import BackupDamagedError, BackupUnknownError

FORMAT = "tidemill-backup"
VERSION = 1
_MAX_LINE_BYTES = 256 << 20
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Header:
    """What is backed up."""

    revision: str  # of the schema
    time_ms: int  # of the database, when it was as the file has it
    tables: Mapping[str, tuple[str, ...]]  # their columns, in the order of the values


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    table: str
    values: tuple[Any, ...]
    num_bytes: int  # of its line


@dataclass(frozen=True, slots=True)
class Totals:
    """What the file says of itself at its end."""

    rows: Mapping[str, int]
    content_sha256: str
    sha256: str

    @property
    def num_rows(self) -> int:
        """Of all tables."""
        return sum(self.rows.values())


class BackupWriter:
    """Writes into an open file. `end` makes it whole."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self._gzip = GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6)
        self._all, self._content = hashlib.sha256(), hashlib.sha256()
        self._rows = dict.fromkeys(header.tables, 0)
        told = {"format": FORMAT, "version": VERSION, "revision": header.revision, "time_ms": header.time_ms}
        self._write({**told, "tables": header.tables})

    def write_row(self, table: str, values: Sequence[Any]) -> None:
        """Add a row; `values` are in the order of the header's columns."""
        self._content.update(self._write([table, *values]))
        self._rows[table] += 1

    def end(self) -> Totals:
        """Write the last line."""
        totals = Totals(self._rows, self._content.hexdigest(), self._all.hexdigest())
        self._write({"rows": totals.rows, "content_sha256": totals.content_sha256, "sha256": totals.sha256})
        self._gzip.close()
        return totals

    def _write(self, content: object) -> bytes:
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_from_bytes)
        line = text.encode() + b"\n"
        self._gzip.write(line)
        self._all.update(line)
        return line


class BackupReader:
    """Reads from an open file. Raises BackupUnknownError for another kind of file, else BackupDamagedError.

    What was read counts only once `rows` has come to its end: there the file is found whole, or not.
    """

    def __init__(self, file: BinaryIO) -> None:
        if file.read(len(_GZIP_MAGIC)) != _GZIP_MAGIC:
            raise BackupUnknownError("The file is no backup of Tidemill.")
        file.seek(0)
        self._gzip = GzipFile(fileobj=file, mode="rb")
        self._all, self._content = hashlib.sha256(), hashlib.sha256()
        self._first_line = self._line()
        self._all.update(self._first_line)

    @property
    def header(self) -> Header:
        """What the first line says; while nothing else was read, it may be a damaged one."""
        try:
            first = _json(self._first_line)
        except BackupDamagedError:
            first = None
        if not isinstance(first, dict) or first.get("format") != FORMAT:
            raise BackupUnknownError("The file is no backup of Tidemill.")
        if first.get("version") != VERSION:
            raise BackupUnknownError(
                f"The backup has version {first.get('version')} of the format, and this Tidemill knows {VERSION}: "
                "take a newer Tidemill."
            )
        try:
            tables = {str(name): tuple(map(str, columns)) for name, columns in first["tables"].items()}
            return Header(str(first["revision"]), int(first["time_ms"]), tables)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BackupDamagedError("The backup's first line was changed.") from error

    def check(self) -> Totals:
        """Read all of the file and find it whole, whatever its lines mean."""
        last = self._line()
        while line := self._line():
            self._take(last)
            last = line
        _ = self.header  # another kind of file is told as that
        return self._found_whole(last)

    def rows(self) -> Iterator[Row]:
        """Yield every row, then find the file whole. Once, and not after `check`."""
        tables = self.header.tables
        found = dict.fromkeys(tables, 0)
        while (line := self._line()).startswith(b"["):
            self._take(line)
            table, *values = _json(line)
            if table not in found or len(values) != len(tables[table]):
                raise BackupDamagedError(f"The backup has a row that fits none of its tables ({str(table)[:64]}).")
            found[table] += 1
            yield Row(table, tuple(_to_bytes(value) if type(value) is dict else value for value in values), len(line))
        if self._line() or self._found_whole(line).rows != found:
            raise BackupDamagedError("The backup has other rows than its last line says.")

    def _take(self, line: bytes) -> None:
        self._all.update(line)
        self._content.update(line)

    def _found_whole(self, last_line: bytes) -> Totals:
        """Compare what was read with what the last line says."""
        last = _json(last_line)
        found = self._content.hexdigest(), self._all.hexdigest()
        if not isinstance(last, dict) or (last.get("content_sha256"), last.get("sha256")) != found:
            raise BackupDamagedError("The backup was changed, or its end is missing: its SHA-256 is another one.")
        rows = last.get("rows")
        if not isinstance(rows, dict):
            raise BackupDamagedError("The backup's last line was changed.")
        return Totals(rows, *found)

    def _line(self) -> bytes:
        try:
            return self._gzip.readline(_MAX_LINE_BYTES)
        except EOFError as error:
            raise BackupDamagedError("The backup is cut off: its end is missing.") from error
        except (BadGzipFile, zlib.error) as error:
            raise BackupDamagedError(f"The backup was changed: it cannot be unpacked ({error}).") from error


def _json(line: bytes) -> Any:
    try:
        return json.loads(line.decode())
    except ValueError as error:  # also what is no UTF-8
        raise BackupDamagedError("The backup was changed: a line of it is no JSON.") from error


def _from_bytes(value: object) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"a backup has no place for a {type(value).__name__}")
    return {"base64": base64.b64encode(value).decode("ascii")}


def _to_bytes(value: dict[str, str]) -> bytes:
    try:
        return base64.b64decode(value["base64"], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise BackupDamagedError("The backup was changed: bytes in it are no base64.") from error
