"""Units of work on slices of limits: what processes hold of them, together never more than there is."""

from collections.abc import Sequence

from sqlalchemy import delete, insert, select

from tidemill_services.domain.limits import LimitKind, SliceAsk, SliceLease, answer
from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import limit_slices


def lease_slices(tx: Transaction, process_id: str, asks: Sequence[SliceAsk]) -> list[SliceLease]:
    """Settle what a process holds, in one transaction; the answers are in the order of the asks."""
    tx.connection.execute(delete(limit_slices).where(limit_slices.c.expire_ms <= tx.now_ms))
    return [_lease(tx, process_id, ask) for ask in asks]


def return_slices(tx: Transaction, process_id: str) -> None:
    """Give back all places of a process that ends; the requests that it may have used up stay so for their minute."""
    is_place = limit_slices.c.kind == LimitKind.GENERATIONS.value
    tx.connection.execute(delete(limit_slices).where(limit_slices.c.process_id == process_id, is_place))


def _lease(tx: Transaction, process_id: str, ask: SliceAsk) -> SliceLease:
    is_limit = (limit_slices.c.subject == ask.subject) & (limit_slices.c.kind == ask.kind.value)
    live = {
        row.process_id: row.held
        for row in tx.connection.execute(select(limit_slices.c.process_id, limit_slices.c.held).where(is_limit))
    }
    others = sum(held for holder, held in live.items() if holder != process_id)
    lease = answer(ask, held_by_others=others, is_live=process_id in live, now_ms=tx.now_ms)
    tx.connection.execute(delete(limit_slices).where(is_limit, limit_slices.c.process_id == process_id))
    if lease.held:
        tx.connection.execute(
            insert(limit_slices).values(
                subject=ask.subject,
                kind=ask.kind.value,
                process_id=process_id,
                held=lease.held,
                expire_ms=lease.expire_ms,
            )
        )
    return lease
