"""A database whose units of work are measured, and what they made true of sessions counted."""

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from tidemill_services.domain.session_facts import SessionFact
from tidemill_services.metrics.process import Metrics
from tidemill_services.store.database import Changes, Database, Transaction

P = ParamSpec("P")
T = TypeVar("T")


class MeasuredDatabase:
    """The port `Database` around another one; see there."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics

    async def open(self) -> None:
        """See the port."""
        await self._database.open()

    async def write(self, unit: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See the port."""

        def with_facts(tx: Transaction) -> tuple[T, list[SessionFact]]:
            return unit(tx, *args, **kwargs), tx.facts

        with self._metrics.store.unit("write"):
            result, facts = await self._database.write(with_facts)
        for fact in facts:
            self._metrics.sessions.count(fact)
        return result

    async def read(self, unit: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See the port."""
        with self._metrics.store.unit("read"):
            return await self._database.read(unit, *args, **kwargs)

    def changes(self, topic: str, *, poll_seconds: float = 1.0) -> Changes:
        """See the port."""
        return self._database.changes(topic, poll_seconds=poll_seconds)

    @property
    def moment(self) -> int:
        """See the port."""
        return self._database.moment

    def changed_since(self, topic: str, moment: int) -> bool:
        """See the port."""
        return self._database.changed_since(topic, moment)

    async def close(self) -> None:
        """See the port."""
        await self._database.close()
