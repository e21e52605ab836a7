"""The database on Postgres, shared by any number of control processes.

Units are written to run alone, and SERIALIZABLE is the level that promises it, whatever a unit reads; row locks would
have to be thought of again in every unit. But serializable transactions that meet must be repeated, and small tables
make them meet even where they share nothing. So the writers of all processes take turns, by a table lock that is the
first statement of each transaction, and all units of a process that wait have one turn.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from tidemill_services.domain.errors import CannotStartError, StoreUnavailableError
from tidemill_services.store import migrations, postgres_errors
from tidemill_services.store.backend import Moment
from tidemill_services.store.listener import APPLICATION_NAME, CHANNEL, KEEPALIVES, MARK_SECONDS, Listener
from tidemill_services.store.server_clock import JUMP_MS, ServerClock
from tidemill_services.store.sql_database import SqlDatabase

_MIGRATION_LOCK = 0x7469_6465  # "tide"
_STATEMENT_SECONDS = 10
_TURN_SECONDS = 2  # without a word from a process whose turn it is: it is stopped, and must not stop the others
_READ_SECONDS = 30  # the same of one that reads, which stops nobody
_WATCHED_MARKS = 5  # of a process that runs, before it counts as one that does not
_LOOK_SECONDS = 0.1
# LOCK TABLE comes before the snapshot; this mode excludes only itself, so not the listener's marks.
_TAKE_TURN = text("LOCK TABLE clock IN SHARE UPDATE EXCLUSIVE MODE")
_NOW = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint, high_water_ms FROM clock")
_RAISE_MARK = text("UPDATE clock SET high_water_ms = :now_ms WHERE high_water_ms < :now_ms")
_OTHERS_LISTEN = text(
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = :listener)"
)
_NO_TIME_LIMITS = (
    text("SET LOCAL statement_timeout = 0"),
    text("SET LOCAL idle_in_transaction_session_timeout = 0"),
)
_NUM_HOSTS = text("SELECT count(*) FROM hosts WHERE expire_ms > :now_ms")
_NOTIFY = text("SELECT pg_notify(:channel, :topic)")


class PostgresDatabase(SqlDatabase):
    """The port `Database` on a server."""

    def __init__(self, url: str) -> None:
        """`url` is `postgresql://USER:PASSWORD@HOST/NAME`."""
        parsed = make_url(url)
        self._conninfo = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        self._postgres = PostgresBackend(url)
        self._listener: Listener | None = None
        super().__init__(self._postgres)

    async def open(self) -> None:
        """Connect, migrate, start the writer and listen for the commits of other processes."""
        await super().open()
        self._listener = Listener(self._conninfo, self._watchers, lambda: self._postgres.clock.newest_ms)

    async def close(self) -> None:
        """Finish what was handed in, then disconnect."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()
        await super().close()


class PostgresBackend:
    """The port `Backend`."""

    num_readers = 4

    def __init__(self, url: str) -> None:
        """`url` is as for the database."""
        parsed = make_url(url).set(drivername="postgresql+psycopg")
        self.write_engine = _engine(parsed, "SERIALIZABLE", pool_size=1, idle_seconds=_TURN_SECONDS)
        self.read_engine = _engine(
            parsed, "REPEATABLE READ", pool_size=self.num_readers, idle_seconds=_READ_SECONDS
        ).execution_options(postgresql_readonly=True)
        event.listen(self.write_engine, "handle_error", _leave_a_server_that_takes_no_writes)
        self.clock = ServerClock()

    def prepare(self) -> None:
        """Migrate, one process at a time."""
        with _told():
            with self.whole_change() as connection:
                migrations.upgrade(connection)
            self._join_clock()

    def take(self) -> None:
        """Nothing to take: any number of processes may have the database."""

    @contextmanager
    def whole_change(self) -> Iterator[Connection]:
        """Wait for other processes that migrate, then have a transaction without time limits."""
        with _told(), self.write_engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
            for statement in _NO_TIME_LIMITS:
                connection.execute(statement)
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Read on one snapshot without time limits; nobody waits for it but who changes tables."""
        with _told(), self.read_engine.begin() as connection:
            for statement in _NO_TIME_LIMITS:
                connection.execute(statement)
            yield connection

    def num_servers(self, connection: Connection) -> int:
        """Count the hosts that gave a sign of life lately; one that was killed counts for ten seconds."""
        num_hosts: int = connection.execute(_NUM_HOSTS, {"now_ms": self.now_ms(connection)}).scalar_one()
        return num_hosts

    def mark_ms(self, connection: Connection) -> int:
        """Return the database's time: all of its processes go by it."""
        return self.now_ms(connection)

    def _join_clock(self) -> None:
        """Where the server's clock was set while other processes run, take the platform's time from them.

        The mark tells it, if it moves. If it stands, nobody runs, and the server's time is as good as any. One that
        moved while we stood still may be old: the next move counts.
        """
        end = time.monotonic() + _WATCHED_MARKS * MARK_SECONDS
        first_ms = looked_ms = None
        while True:
            with self.read_engine.begin() as connection:
                server_ms, mark_ms = _server_and_mark_ms(connection)
                if first_ms is None and not _may_be_set(connection, server_ms, mark_ms):
                    return
            if first_ms is not None and looked_ms is not None and mark_ms > first_ms:
                if abs(server_ms - looked_ms) <= JUMP_MS:
                    if _is_behind(server_ms, mark_ms):
                        self.clock.join(server_ms, mark_ms)
                    return  # else it was only long ago that it moved before
                end = time.monotonic() + _WATCHED_MARKS * MARK_SECONDS
            first_ms, looked_ms = mark_ms, server_ms
            if time.monotonic() >= end:
                return
            time.sleep(_LOOK_SECONDS)

    def take_turn(self, connection: Connection) -> None:
        """Wait until no other process writes."""
        connection.execute(_TAKE_TURN)

    def now_ms(self, connection: Connection) -> int:
        """Return the database's time."""
        return self.clock.now_ms(lambda: _server_and_mark_ms(connection))

    def before_commit(self, connection: Connection, now_ms: int, topics: Iterable[str]) -> None:
        """Notify all processes; where their clocks may differ by a little, order them by the mark."""
        if self.clock.was_set:
            connection.execute(_RAISE_MARK, {"now_ms": now_ms})
        for topic in topics:
            connection.execute(_NOTIFY, {"channel": CHANNEL, "topic": topic})

    def lost_race(self, error: Exception) -> bool:
        """Whether a repeat may succeed."""
        return postgres_errors.lost_race(error)

    def store_error(self, error: Exception, moment: Moment) -> StoreUnavailableError | None:
        """Say what Postgres says."""
        return postgres_errors.store_error(error, moment)

    def dispose(self) -> None:
        """Disconnect."""
        self.read_engine.dispose()
        self.write_engine.dispose()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise CannotStartError(f"The database cannot be opened. The server or its driver says: {error.orig}") from error


def _server_and_mark_ms(connection: Connection) -> tuple[int, int]:
    server_ms, mark_ms = connection.execute(_NOW).one()
    return server_ms, mark_ms


def _may_be_set(connection: Connection, server_ms: int, mark_ms: int) -> bool:
    """Whether the mark lies further back than that of processes that run."""
    if not _is_behind(server_ms, mark_ms):
        return False
    others_listen: bool = connection.execute(_OTHERS_LISTEN, {"listener": APPLICATION_NAME}).scalar_one()
    return others_listen


def _is_behind(server_ms: int, mark_ms: int) -> bool:
    return server_ms > mark_ms + MARK_SECONDS * 1000 + JUMP_MS


def _leave_a_server_that_takes_no_writes(context: ExceptionContext) -> None:
    """After a failover the old connection leads to what is a standby now; the next one may lead to the new primary."""
    if postgres_errors.takes_no_writes(context.original_exception):
        context.is_disconnect = True


def _engine(url: URL, isolation_level: str, *, pool_size: int, idle_seconds: int) -> Engine:
    options = f"-c statement_timeout={_STATEMENT_SECONDS}s -c idle_in_transaction_session_timeout={idle_seconds}s"
    return create_engine(
        url,
        isolation_level=isolation_level,
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,  # what customers send stays out of errors and logs
        pool_pre_ping=True,  # a server that was restarted costs nobody an error
        connect_args={"connect_timeout": 5, "options": options, **KEEPALIVES},
    )
