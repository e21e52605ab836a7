"""The port to a database: units of work in, their results out.

A *unit* is a plain function whose first argument is a `Transaction`. It runs alone and whole: it commits when it
returns and leaves nothing behind when it raises. It may run more than once (Postgres, on a serialization failure),
so it does nothing but read and write through its transaction, and it catches no database error: on Postgres an error
ends the transaction. The same units run on SQLite and on Postgres.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection

from tidemill_services.domain.session_facts import SessionFact

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class Transaction:
    """What a unit of work works with."""

    connection: Connection
    now_ms: int  # the one clock that intervals open and close by; never goes back
    topics: set[str] = field(default_factory=set)
    facts: list[SessionFact] = field(default_factory=list)  # that are true once it is committed

    def notify(self, topic: str) -> None:
        """Wake whoever watches `topic`, after the commit."""
        self.topics.add(topic)


REST_SECONDS = 10.0  # between two looks at what only a commit can change


class Changes(Protocol):
    """A watch of a topic, for `async for`. It may be closed, or just dropped."""

    rest_seconds: float
    """Set by whoever looks: where time alone changes nothing, the next look that nobody asked for may come as late as
    this, as long as all commits are heard of."""

    def __aiter__(self) -> AsyncIterator[None]: ...

    async def __anext__(self) -> None: ...

    async def aclose(self) -> None:
        """Stop watching."""


class Database(Protocol):
    """A SQLite file or a Postgres database. Raises StoreUnavailableError when it cannot be reached."""

    async def open(self) -> None:
        """Connect and bring the schema up to date. Raises CannotStartError."""

    async def write(self, unit: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit that writes; durable when this returns.

        A cancelled caller does not learn whether the unit ran. Then, and after an outcome that the error calls unknown,
        ask with the same request_id.
        """

    async def read(self, unit: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit that only reads, on one snapshot that holds every write that has returned."""

    def changes(self, topic: str, *, poll_seconds: float = 1.0) -> Changes:
        """Yield at once, then after each commit that notified `topic`, and after `poll_seconds` in any case.

        Commits that come while the caller is busy are one. A cancelled `anext` loses nothing. Ends when the database is
        closed.
        """

    @property
    def moment(self) -> int:
        """A number that grows with each commit that is heard of."""

    def changed_since(self, topic: str, moment: int) -> bool:
        """Whether a commit that notified `topic` was heard of after that moment; perhaps also when none was.

        Of this process's own commits it is known before their caller hears of them, of others' as soon as the database
        tells us, so what hangs on it must bear an age besides.
        """

    async def close(self) -> None:
        """Finish what was handed in, then disconnect."""
