"""The database: who has it, whether it is whole, whether it can be reached."""

import fcntl
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tidemill_services.doctor.finding import Finding, Level, ok, warning, wrong
from tidemill_services.doctor.schema import check_schema

_CHECK_SECONDS = 1.0
_CONNECT_SECONDS = 5
_INSTRUCTIONS_BETWEEN_LOOKS = 10_000


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a look into a SQLite file gave."""

    high_water_ms: int | None  # the latest time that a server wrote; None when there is none
    findings: list[Finding]


def lock_holder(database: Path) -> str | None:
    """The process id of the server that has the database, as it wrote it; None when nobody has it."""
    try:
        descriptor = os.open(database.with_name(database.name + ".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
    finally:
        os.close(descriptor)  # with it goes the lock
    return None


def check_lock(database: Path, holder: str | None) -> Finding:
    """Whether a server could take the database."""
    if holder is not None:
        return ok("database lock", f"A server has {database}: process {holder}.")
    return ok("database lock", f"No server has {database}.")


def examine_file(database: Path) -> FileFacts:
    """SQLite's own quick check, read-only and for a second at most."""
    if not database.exists():
        return FileFacts(None, [ok("database", f"{database} is not there yet; the first start makes it.")])
    log, index = (database.with_name(database.name + end) for end in ("-wal", "-shm"))
    if log.exists() and log.stat().st_size and not index.exists():
        sentence = f"{database} was left with unfinished work in {log}: the next start takes it in, then ask again."
        return FileFacts(None, [warning("database", sentence)])
    # Without a log nobody has the file open, and `immutable` keeps SQLite from making one.
    how = "mode=ro" if log.exists() else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database.absolute()))}?{how}", uri=True, timeout=0.5)) as opened:
            return _look_into(opened, database)
    except sqlite3.Error as error:
        return FileFacts(None, [wrong("database", f"{database} cannot be read ({error}): restore it from the backup.")])


def check_postgres(url: str) -> list[Finding]:
    """Connect, ask which server it is and which schema it has. Its answers may hold the password: not shown whole."""
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - may be what is missing
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        import psycopg  # noqa: PLC0415 - in an extra
    except ImportError:
        return [wrong("database", "Postgres needs an extra: run `pip install 'tidemill[postgres]'`.")]
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return [wrong("database", "--database is no URL: it may be postgresql://USER:PASSWORD@HOST:PORT/NAME.")]
    shown = parsed.render_as_string(hide_password=True)
    conninfo = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(conninfo, connect_timeout=_CONNECT_SECONDS) as connection:
            version = connection.info.server_version
            is_there = connection.execute("SELECT to_regclass('alembic_version') IS NOT NULL").fetchone() == (True,)
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if is_there else None
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        if parsed.password:
            said = said.replace(str(parsed.password), "***")
        return [wrong("database", f"{shown} cannot be reached ({said[:300]}): check the URL and that the server runs.")]
    answers = ok("database", f"{shown} answers: PostgreSQL {version // 10_000}.{version % 10_000}.")
    return [answers, check_schema(shown, str(row[0]) if row else None)]


def _look_into(opened: sqlite3.Connection, database: Path) -> FileFacts:
    opened.execute("PRAGMA query_only = 1")
    has_mark, mark = _only_value(opened, "clock", "high_water_ms")
    has_schema, revision = _only_value(opened, "alembic_version", "version_num")
    high_water_ms = None if mark is None else int(mark)
    whole = _quick_check(opened, database)
    if whole.level is Level.WRONG:
        return FileFacts(high_water_ms, [whole])
    if not has_mark and (revision is not None or not has_schema):
        sentence = f"{database} is whole, and is no database of Tidemill: choose another --database or --data-dir."
        return FileFacts(None, [wrong("database", sentence)])
    return FileFacts(high_water_ms, [whole, check_schema(str(database), revision)])


def _quick_check(opened: sqlite3.Connection, database: Path) -> Finding:
    deadline = time.monotonic() + _CHECK_SECONDS
    opened.set_progress_handler(lambda: int(time.monotonic() > deadline), _INSTRUCTIONS_BETWEEN_LOOKS)
    try:
        said = [row[0] for row in opened.execute("PRAGMA quick_check(3)")]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        sentence = f"{database} is too large to check within a second: run `sqlite3 {database} 'PRAGMA quick_check'`."
        return warning("database", sentence)
    if said != ["ok"]:
        told = "; ".join(" ".join(line.split()) for line in said)
        return wrong("database", f"{database} is damaged ({told}): stop the server and restore it from the backup.")
    return ok("database", f"{database} is whole.")


def _only_value(opened: sqlite3.Connection, table: str, column: str) -> tuple[bool, str | None]:
    """Whether the table is there, and what its only row has, as text."""
    if opened.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is None:
        return False, None
    row = opened.execute(f"SELECT {column} FROM {table}").fetchone()  # noqa: S608 - our own names
    return True, str(row[0]) if row else None
