"""Units of work on demand: generations that run or wait, as each control process counts them."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select

from tidemill_services.store.database import Transaction
from tidemill_services.store.models import notify_model
from tidemill_services.store.tables import demand, models, of_model

DEMAND_LEASE_MS = 5_000  # what a process counted is forgotten after so long without a repeat


@dataclass(frozen=True, slots=True)
class Demand:
    """Generations of one model."""

    num_running: int = 0
    num_waiting: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.num_running + self.num_waiting


def publish_demand(tx: Transaction, process_id: str, counted: Mapping[str, Demand]) -> None:
    """Say what this process counts now, in place of what it said before; models that are not named have none."""
    mine = demand.c.process_id == process_id
    before = {
        row.model: Demand(row.num_running, row.num_waiting) for row in tx.connection.execute(select(demand).where(mine))
    }
    known = set(tx.connection.execute(select(models.c.name).where(models.c.name.in_(counted))).scalars())
    after = {model: count for model, count in counted.items() if model in known and count.total}
    tx.connection.execute(delete(demand).where(mine))
    if after:
        tx.connection.execute(
            insert(demand),
            [
                {
                    "process_id": process_id,
                    "model": model,
                    "num_running": count.num_running,
                    "num_waiting": count.num_waiting,
                    "expire_ms": tx.now_ms + DEMAND_LEASE_MS,
                }
                for model, count in after.items()
            ],
        )
    for model in before.keys() | after.keys():
        if _num_waiting(before.get(model)) != _num_waiting(after.get(model)):
            notify_model(tx, model)


def _num_waiting(demand: Demand | None) -> int | None:
    """What is told at once; how many run changes each second, and everybody who looks at it does so each second."""
    return None if demand is None else demand.num_waiting


def demand_by_model(tx: Transaction, model: str | None = None) -> dict[str, Demand]:
    """Return the sums over all processes that still count, of each model or one; models without any are left out."""
    query = (
        select(demand.c.model, func.sum(demand.c.num_running), func.sum(demand.c.num_waiting))
        .where(demand.c.expire_ms > tx.now_ms, of_model(demand, model))
        .group_by(demand.c.model)
    )
    return {model: Demand(int(running), int(waiting)) for model, running, waiting in tx.connection.execute(query)}
