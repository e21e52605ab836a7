"""The port between the database's common half and what differs between SQLite and Postgres."""

from collections.abc import Iterable
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
        """Bring the schema up to date. Raises CannotStartError."""

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
