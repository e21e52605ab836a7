"""Units of work on slices of credits: what processes hold ahead, to pay answers by their tokens."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, and_, delete, func, insert, or_, select, update

from tidemill_services.domain.token_billing import SLICE_LEASE_MS, Settlement, hold_change, settled
from tidemill_services.store import ledger
from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import credit_slices

_FORGET_MS = 86_400_000  # so long it is known of a slice which charges have come


def settle(tx: Transaction, process_id: str, settlements: Sequence[Settlement]) -> list[int]:
    """Charge answers and hold more, or give some back; returns what each slice holds then, in the same order."""
    return [_settle(tx, process_id, each) for each in settlements]


def return_lapsed(tx: Transaction) -> None:
    """Give back what processes hold that show no life any more."""
    lapsed = select(credit_slices).where(credit_slices.c.expire_ms <= tx.now_ms)
    for row in tx.connection.execute(lapsed.where(credit_slices.c.held_microcredits > 0)).all():
        ledger.post(tx, row.account_id, [hold_change(-row.held_microcredits)])
        _write(tx, row.account_id, row.process_id, {"held_microcredits": 0})
    tx.connection.execute(delete(credit_slices).where(credit_slices.c.expire_ms <= tx.now_ms - _FORGET_MS))


def has_lapsed(tx: Transaction) -> bool:
    """Whether there is something to give back."""
    is_lapsed = and_(credit_slices.c.expire_ms <= tx.now_ms, credit_slices.c.held_microcredits > 0)
    is_old = credit_slices.c.expire_ms <= tx.now_ms - _FORGET_MS
    found = tx.connection.execute(select(credit_slices.c.account_id).where(or_(is_lapsed, is_old)).limit(1))
    return found.first() is not None


def held_by_account(tx: Transaction) -> dict[str, int]:
    """Return what is held in slices, by account."""
    sums = select(credit_slices.c.account_id, func.sum(credit_slices.c.held_microcredits))
    return {account_id: int(held) for account_id, held in tx.connection.execute(sums.group_by("account_id"))}


def _settle(tx: Transaction, process_id: str, asked: Settlement) -> int:
    before = _find(tx, asked.account_id, process_id)
    held, last_number = (0, 0) if before is None else (before.held_microcredits, before.last_number)
    has_come = asked.number <= last_number  # and its answer was lost
    new = replace(asked, charges=()) if has_come else asked
    available = ledger.balance_of(tx, asked.account_id).available_microcredits
    postings, held = settled(new, held, available, tx.now_ms)
    ledger.post(tx, asked.account_id, postings)
    values = {
        "held_microcredits": held,
        "last_number": max(last_number, asked.number),
        "expire_ms": tx.now_ms + SLICE_LEASE_MS,
    }
    if before is None:
        own = {"account_id": asked.account_id, "process_id": process_id}
        tx.connection.execute(insert(credit_slices).values(**own, **values))
    else:
        _write(tx, asked.account_id, process_id, values)
    return held


def _find(tx: Transaction, account_id: str, process_id: str) -> Row[Any] | None:
    is_own = (credit_slices.c.account_id == account_id, credit_slices.c.process_id == process_id)
    return tx.connection.execute(select(credit_slices).where(*is_own)).one_or_none()


def _write(tx: Transaction, account_id: str, process_id: str, values: dict[str, int]) -> None:
    is_own = (credit_slices.c.account_id == account_id, credit_slices.c.process_id == process_id)
    tx.connection.execute(update(credit_slices).where(*is_own).values(**values))
