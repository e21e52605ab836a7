"""Units of work on slices of limits: what processes hold of them, together never more than there is."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from tidemill_services.domain.limits import LimitKind, granted, lease_end_ms
from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import limit_slices


@dataclass(frozen=True, slots=True)
class SliceAsk:
    """What a process wants to hold of one limit, in all; less than before gives the rest back."""

    subject: str  # accounts/{account} or keys/{key}
    kind: LimitKind
    limit: int
    held: int  # what it goes on with, whatever the answer
    spent: int  # of it
    wanted: int
    period: int  # until when it holds that, by the store's time; for requests it says which minute


@dataclass(frozen=True, slots=True)
class SliceLease:
    """What the process holds from now on."""

    held: int
    expire_ms: int
    now_ms: int


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
    expire_ms = lease_end_ms(ask.kind, tx.now_ms)
    if ask.kind is LimitKind.REQUESTS:
        kept = ask.held if ask.period == expire_ms else 0
    else:  # generations that run do so also when their process's lease has lapsed
        kept = ask.held if process_id in live else ask.spent
    held = granted(kept=kept, wanted=ask.wanted, limit=ask.limit, held_by_others=others)
    tx.connection.execute(delete(limit_slices).where(is_limit, limit_slices.c.process_id == process_id))
    if held:
        tx.connection.execute(
            insert(limit_slices).values(
                subject=ask.subject, kind=ask.kind.value, process_id=process_id, held=held, expire_ms=expire_ms
            )
        )
    return SliceLease(held, expire_ms, tx.now_ms)
