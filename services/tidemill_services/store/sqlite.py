"""The database as one SQLite file, for one process."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, select
from sqlalchemy.exc import DBAPIError

from tidemill_services.domain.errors import CannotStartError, StoreUnavailableError
from tidemill_services.store import migrations
from tidemill_services.store.backend import Moment
from tidemill_services.store.clock import Clock
from tidemill_services.store.file_lock import FileLock
from tidemill_services.store.sql_database import SqlDatabase
from tidemill_services.store.sqlite_errors import store_error
from tidemill_services.store.tables import clock

_RAISE_MARK = "UPDATE clock SET high_water_ms = ?"  # the driver's own: it is a part of every commit
_BUSY_TIMEOUT_MS = 5_000  # only foreign programs ever lock us out


class SqliteDatabase(SqlDatabase):
    """The port `Database` on one file. Every write is synced to disk before its caller hears of it."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        super().__init__(_SqliteBackend(path, clock or Clock()))


class _SqliteBackend:
    """The port `Backend`."""

    num_readers = 4

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        self.write_engine = _engine(path, begin="BEGIN IMMEDIATE", query_only=False, pool_size=1)
        self.read_engine = _engine(path, begin="BEGIN", query_only=True, pool_size=self.num_readers)

    def prepare(self) -> None:
        """Take the file for this process and migrate it."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire()
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with self.write_engine.begin() as connection:
                migrations.upgrade(connection)
                self._clock.start_from(connection.execute(select(clock.c.high_water_ms)).scalar_one())
        except (OSError, DBAPIError) as error:
            reason = store_error(error, Moment.WRITING) or (
                error.orig if isinstance(error, DBAPIError) else error.strerror
            )
            raise CannotStartError(f"The database {self._path} cannot be opened. {reason}") from error

    def take_turn(self, connection: Connection) -> None:
        """Nothing to wait for: the file is ours alone."""

    def now_ms(self, connection: Connection) -> int:
        """Return the process's time."""
        return self._clock.now_ms()

    def before_commit(self, connection: Connection, now_ms: int, topics: Iterable[str]) -> None:
        """Raise the mark behind which time never goes back, whatever the wall clock says after a restart."""
        connection.exec_driver_sql(_RAISE_MARK, (now_ms,))

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
        connection.exec_driver_sql(begin)

    return engine
