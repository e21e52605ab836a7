"""The database as one SQLite file, for one process."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, select
from sqlalchemy.exc import DBAPIError

from tidemill_services.domain.errors import CannotStartError, StoreUnavailableError
from tidemill_services.store import migrations
from tidemill_services.store.backend import Moment
from tidemill_services.store.clock import Clock
from tidemill_services.store.file_lock import FileLock
from tidemill_services.store.prepared import run_by_driver
from tidemill_services.store.sql_database import SqlDatabase
from tidemill_services.store.sqlite_errors import store_error
from tidemill_services.store.tables import clock

_RAISE_MARK = "UPDATE clock SET high_water_ms = ?"  # the driver's own: it is a part of every commit
_BUSY_TIMEOUT_MS = 2_000  # only foreign programs ever lock us out


class SqliteDatabase(SqlDatabase):
    """The port `Database` on one file. Every write is synced to disk before its caller hears of it."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        super().__init__(SqliteBackend(path, clock))


class SqliteBackend:
    """The port `Backend`."""

    num_readers = 4

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or Clock()
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        self.write_engine = _engine(path, begin="BEGIN IMMEDIATE", query_only=False, pool_size=1)
        self.read_engine = _engine(path, begin="BEGIN", query_only=True, pool_size=self.num_readers)

    def prepare(self) -> None:
        """Take the file for this process and migrate it."""
        self.take()
        with self.whole_change() as connection:
            migrations.upgrade(connection)
            self._clock.start_from(self.mark_ms(connection))

    def take(self) -> None:
        """Lock the file, and make it when there is none."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire()
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise self._refusal(store_error(error, Moment.WRITING) or error.strerror) from error

    @contextmanager
    def whole_change(self) -> Iterator[Connection]:
        """A transaction like any other one: the file is ours alone."""
        with self._told(), self.write_engine.begin() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Read beside a server that writes; its log grows for as long as this lasts."""
        if not self._path.is_file():
            raise CannotStartError(f"There is no database {self._path}: say --data-dir or --database.")
        with self._told(), self.read_engine.begin() as connection:
            yield connection

    def num_servers(self, connection: Connection) -> int:
        """None: the file is ours alone."""
        return 0

    def mark_ms(self, connection: Connection) -> int:
        """Return the time of the last commit; wall time may be another one than that of a server that runs."""
        mark_ms: int = connection.execute(select(clock.c.high_water_ms)).scalar_one()
        return mark_ms

    def take_turn(self, connection: Connection) -> None:
        """Nothing to wait for: the file is ours alone."""

    def now_ms(self, connection: Connection) -> int:
        """Return the process's time."""
        return self._clock.now_ms()

    def before_commit(self, connection: Connection, now_ms: int, topics: Iterable[str]) -> None:
        """Raise the mark behind which time never goes back, whatever the wall clock says after a restart."""
        run_by_driver(connection, _RAISE_MARK, (now_ms,))

    def lost_race(self, error: Exception) -> bool:
        """Never: there is one writer."""
        return False

    def store_error(self, error: Exception, moment: Moment) -> StoreUnavailableError | None:
        """Say what SQLite says. A commit that fails has not happened."""
        return store_error(error, moment)

    def dispose(self) -> None:
        """Close the file, then let others have it."""
        self.read_engine.dispose()
        self.write_engine.dispose()
        self._lock.release()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._refusal(store_error(error, Moment.WRITING) or error.orig) from error

    def _refusal(self, reason: object) -> CannotStartError:
        return CannotStartError(f"The database {self._path} cannot be opened. {reason}")


def _engine(path: Path, *, begin: str, query_only: bool, pool_size: int) -> Engine:
    url = URL.create("sqlite", database=str(path.absolute()))
    engine = create_engine(url, pool_size=pool_size, max_overflow=0, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def set_up(driver: Any, _record: Any) -> None:
        driver.isolation_level = None  # we begin transactions ourselves: the driver would not before a SELECT
        driver.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        driver.execute("PRAGMA journal_mode = WAL")
        driver.execute("PRAGMA synchronous = FULL")
        driver.execute("PRAGMA foreign_keys = ON")
        driver.execute(f"PRAGMA query_only = {int(query_only)}")

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        run_by_driver(connection, begin)

    return engine
