"""The one writer of a process: a thread that commits many units of work with one sync to disk."""

import asyncio
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.store.backend import Backend, Moment
from tidemill_services.store.database import Transaction
from tidemill_services.store.prepared import run_by_driver

MAX_BATCH = 256  # units; bounds how long the first of a batch waits for the last
MAX_ATTEMPTS = 20
ANSWER_SECONDS = 10.0  # then nobody waits any longer for a database that says nothing
SILENT = "The database does not answer, nothing was saved: try again."
SILENT_MEANWHILE = (
    "The database does not answer, so it is unknown whether it was saved: repeat with the same request_id."
)


@dataclass(slots=True)
class _Handed:
    """A unit that was handed in, and what came of it."""

    unit: Callable[[Transaction], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None
    has_begun: bool = False  # set by the writer before it looks at `is_given_up`,
    is_given_up: bool = False  # and this by the caller's side before it looks at `has_begun`

    def give_up(self) -> None:
        """Tell the caller that the database is silent; a unit that has not begun will not."""
        self.is_given_up = True
        if not self.future.done():
            self.future.set_exception(StoreUnavailableError(SILENT_MEANWHILE if self.has_begun else SILENT))


class GroupCommit:
    """Runs units in the order in which they came, and commits all that wait together, each in its savepoint."""

    def __init__(self, backend: Backend, on_commit: Callable[[set[str]], None]) -> None:
        """`on_commit` takes the notified topics in the event loop, after their commit."""
        self._backend = backend
        self._on_commit = on_commit
        self._handed: queue.SimpleQueue[_Handed | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, unit: Callable[[Transaction], Any]) -> asyncio.Future[Any]:
        """Hand a unit in. The future resolves when the unit is durable, or with its error.

        It has StoreUnavailableError when the database is silent for `ANSWER_SECONDS`.
        """
        handed = _Handed(unit, self._loop.create_future())
        patience = self._loop.call_later(ANSWER_SECONDS, handed.give_up)
        handed.future.add_done_callback(partial(_cancel, patience))
        self._handed.put(handed)
        return handed.future

    async def close(self) -> None:
        """Commit what was handed in, then end the thread."""
        self._handed.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        closing = False
        while not closing:
            batch, closing = self._next_batch()
            if batch:
                topics = self._commit(batch)
                self._loop.call_soon_threadsafe(self._resolve, batch, topics)

    def _next_batch(self) -> tuple[list[_Handed], bool]:
        """Wait for one unit, then take what else is there. The flag says that nothing comes after."""
        batch: list[_Handed] = []
        handed = self._handed.get()
        while handed is not None:
            batch.append(handed)
            if len(batch) == MAX_BATCH or self._handed.empty():
                return batch, False
            handed = self._handed.get()
        return batch, True

    def _commit(self, batch: Sequence[_Handed]) -> set[str]:
        """Run and commit a batch; return what it notified. Without a commit every unit of it has an error."""
        for attempt in range(MAX_ATTEMPTS):
            moment = Moment.WRITING
            try:
                with self._backend.write_engine.begin() as connection:
                    topics = self._run_units(connection, batch)
                    moment = Moment.COMMITTING
            except Exception as error:  # noqa: BLE001 - the writer outlives whatever the database does
                if attempt + 1 < MAX_ATTEMPTS and self._backend.lost_race(error):
                    time.sleep(random.uniform(0, min(0.2, 0.002 * 2**attempt)))  # noqa: S311 - parts the rivals
                    continue
                lost = self._backend.store_error(error, moment) or _for_a_future(error)
                for handed in batch:
                    handed.error = handed.error or lost
                return set()
            else:
                return topics
        raise AssertionError("the last attempt returns")

    def _run_units(self, connection: Connection, batch: Sequence[_Handed]) -> set[str]:
        self._backend.take_turn(connection)
        now_ms = self._backend.now_ms(connection)
        topics: set[str] = set()
        run = self._run_unit if len(batch) > 1 else _run_alone
        for handed in batch:
            handed.has_begun = True
            if handed.is_given_up:
                continue
            tx = Transaction(connection, now_ms)
            handed.result = handed.error = None
            run(tx, handed)
            if handed.error is None:
                topics |= tx.topics
        self._backend.before_commit(connection, now_ms, topics)
        return topics

    def _run_unit(self, tx: Transaction, handed: _Handed) -> None:
        """Run one unit in its savepoint. Raises only when the whole transaction is gone."""
        # By hand: SQLAlchemy's nested transactions cost more than most units.
        run_by_driver(tx.connection, "SAVEPOINT unit")
        try:
            handed.result = handed.unit(tx)
        except Exception as error:
            if self._backend.lost_race(error):
                raise
            try:
                run_by_driver(tx.connection, "ROLLBACK TO SAVEPOINT unit")
            except SQLAlchemyError as broken:  # the disk is full, or the connection lost: there is no savepoint left
                is_cause = self._backend.store_error(error, Moment.WRITING) is not None
                raise (error if is_cause else broken) from None  # a unit's own refusal is not the others'
            handed.error = self._backend.store_error(error, Moment.WRITING) or _for_a_future(error)
        run_by_driver(tx.connection, "RELEASE SAVEPOINT unit")

    def _resolve(self, batch: Sequence[_Handed], topics: set[str]) -> None:
        self._on_commit(topics)  # first, so that nobody acts on a result while what is remembered is older
        for handed in batch:
            if handed.future.done():  # cancelled, or given up
                continue
            if handed.error is None:
                handed.future.set_result(handed.result)
            else:
                handed.future.set_exception(handed.error)


def _run_alone(tx: Transaction, handed: _Handed) -> None:
    """Run the only unit of its transaction, which needs no savepoint: what it raises ends the transaction."""
    handed.result = handed.unit(tx)


def _cancel(timer: asyncio.TimerHandle, _future: asyncio.Future[Any]) -> None:
    timer.cancel()


def _for_a_future(error: Exception) -> Exception:
    """Futures refuse StopIteration, as coroutines do."""
    return RuntimeError(f"a unit raised {error!r}") if isinstance(error, StopIteration) else error
