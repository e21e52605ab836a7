"""The port between the database's common half and what differs between SQLite and Postgres."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Protocol

from sqlalchemy import Connection, Engine

from tidemill_services.domain.errors import StoreUnavailableError


class Moment(StrEnum):
    """What a transaction did when an error came: the same code may be a unit's fault, or the store's state."""

    READING = "reading"
    WRITING = "writing"
    COMMITTING = "committing"


class Backend(Protocol):
    """Where transactions come from. Every method blocks; none is called from the event loop."""

    @property
    def write_engine(self) -> Engine:
        """Used by one thread; its transactions run as if alone."""

    @property
    def read_engine(self) -> Engine:
        """Its transactions are read-only snapshots."""

    @property
    def num_readers(self) -> int:
        """How many of those there are at once."""

    def prepare(self) -> None:
        """Take the database and bring the schema up to date. Raises CannotStartError."""

    def take(self) -> None:
        """Have the database for this process, where only one can; `dispose` gives it back. Raises CannotStartError."""

    def whole_change(self) -> AbstractContextManager[Connection]:
        """A transaction for who changes all of the database, for as long as it takes; no other one migrates meanwhile.

        After `take`. Raises CannotStartError for what the database itself says.
        """

    def snapshot(self) -> AbstractContextManager[Connection]:
        """A read-only transaction that may last, beside servers that go on. Raises CannotStartError, as above."""

    def num_servers(self, connection: Connection) -> int:
        """How many other processes serve from the database, as far as it knows. Not before the first migration."""

    def mark_ms(self, connection: Connection) -> int:
        """A time that nothing which the transaction reads was written after. Not before the first migration."""

    def take_turn(self, connection: Connection) -> None:
        """Wait, as the first thing in a writing transaction, until no other process writes."""

    def now_ms(self, connection: Connection) -> int:
        """The time of this transaction; never behind what was written before."""

    def before_commit(self, connection: Connection, now_ms: int, topics: Iterable[str]) -> None:
        """Write what goes with every transaction."""

    def lost_race(self, error: Exception) -> bool:
        """Whether the transaction lost against another one, left nothing behind and may run again."""

    def store_error(self, error: Exception, moment: Moment) -> StoreUnavailableError | None:
        """The sentence for an error of the database itself; None for a fault of a statement or a unit."""

    def dispose(self) -> None:
        """Disconnect."""
