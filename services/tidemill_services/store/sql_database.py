"""The half of the database that SQLite and Postgres share: one writer thread, and readers on snapshots of their own.

Units are plain blocking code, so they run in threads, and never hold up the event loop.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Concatenate, Generic, ParamSpec, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.store.backend import Backend, Moment
from tidemill_services.store.database import Changes, Transaction
from tidemill_services.store.group_commit import ANSWER_SECONDS, GroupCommit
from tidemill_services.store.watchers import Watchers

P = ParamSpec("P")
T = TypeVar("T")

SILENT_READING = "The database does not answer: try again."


@dataclass(slots=True)
class _Question(Generic[T]):
    """A unit that reads."""

    unit: Callable[[Transaction], T]
    has_answer: bool = False  # the database has said something
    is_given_up: bool = False

    def give_up(self, answer: asyncio.Future[T]) -> None:
        """Wait no longer, unless the database has answered."""
        if not (self.has_answer or answer.done()):
            self.is_given_up = True
            answer.cancel()


class SqlDatabase:
    """The port `Database` over a backend. One event loop uses it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._watchers = Watchers()
        self._readers = ThreadPoolExecutor(backend.num_readers, thread_name_prefix="store-reader")
        self._writer: GroupCommit | None = None

    async def open(self) -> None:
        """Connect, migrate and start the writer."""
        try:
            await asyncio.to_thread(self._backend.prepare)
        except BaseException:
            await asyncio.to_thread(self._backend.dispose)
            raise
        self._writer = GroupCommit(self._backend, self._watchers.wake)

    async def write(self, unit: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit in the writer; a process's units run in the order in which they are handed in."""
        if self._writer is None:
            raise StoreUnavailableError("The store is closed.")
        result: T = await self._writer.submit(lambda tx: unit(tx, *args, **kwargs))
        return result

    async def read(self, unit: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit on a reader's snapshot."""
        if self._writer is None:
            raise StoreUnavailableError("The store is closed.")
        return await self._ask(_Question(lambda tx: unit(tx, *args, **kwargs)))

    def changes(self, topic: str, *, poll_seconds: float = 1.0) -> Changes:
        """Watch a topic."""
        return self._watchers.watch(topic, poll_seconds)

    @property
    def moment(self) -> int:
        """See the port."""
        return self._watchers.moment

    def changed_since(self, topic: str, moment: int) -> bool:
        """See the port."""
        return self._watchers.changed_since(topic, moment)

    async def close(self) -> None:
        """Finish what was handed in, then disconnect."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.close()
        self._watchers.close()
        await asyncio.to_thread(self._readers.shutdown)
        await asyncio.to_thread(self._backend.dispose)

    async def _ask(self, question: "_Question[T]") -> T:
        """Have a reader run it. Nobody waits for a database that is silent; one that answered may take its time."""
        loop = asyncio.get_running_loop()
        answer = loop.run_in_executor(self._readers, self._read, question)
        patience = loop.call_later(ANSWER_SECONDS, question.give_up, answer)
        try:
            return await answer
        except asyncio.CancelledError:
            if question.is_given_up:
                raise StoreUnavailableError(SILENT_READING) from None
            raise
        finally:
            patience.cancel()

    def _read(self, question: "_Question[T]") -> T:
        try:
            with self._backend.read_engine.begin() as connection:
                transaction = Transaction(connection, self._backend.now_ms(connection))
                question.has_answer = True
                return question.unit(transaction)
        except SQLAlchemyError as error:
            raise self._backend.store_error(error, Moment.READING) or error from error
