"""Books to look into: sessions of two accounts at times that a test sets, charged, sealed in several blocks."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from sqlalchemy import text

from tests.contract.store.conftest import Customer, new_customer
from tidemill_services.domain.session import Session
from tidemill_services.store import leader, ledger_seal, session_activity, sessions
from tidemill_services.store.billing_proof import BillingProof, prove_billing
from tidemill_services.store.database import Database, Transaction

LEADER = "host.1"
PRICE = 1_250
APPEND_ONLY = ("ledger_entries", "ledger_blocks", "prices")


async def at(database: Database, now_ms: int, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a unit as if it were that time."""

    def later(tx: Transaction) -> Any:
        tx.now_ms = now_ms
        return unit(tx, *args, **kwargs)

    return await database.write(later)


async def seal(database: Database, process_id: str = LEADER) -> None:
    """Seal all rows into one block."""

    def seal_all(tx: Transaction) -> None:
        epoch = leader.renew_leadership(tx, process_id)
        assert epoch is not None
        while ledger_seal.seal(tx, process_id, epoch):
            pass

    await database.write(seal_all)


async def prove(database: Database, **kept: Iterable[Any]) -> BillingProof:
    """Compare all that the database says."""
    return await database.read(lambda tx: prove_billing(tx.connection, **kept))


async def assert_proven(database: Database) -> BillingProof:
    """Hold that the books are right."""
    proof = await prove(database)
    assert not proof.misfits
    return proof


async def make_books(customer: Customer) -> list[Session]:
    """Two sessions of two accounts, one ended and one open, in three blocks and two rows that are not sealed."""
    database = customer.database
    await seal(database)
    other = await new_customer(database, "second")
    first = (await customer.start(price_revision=1))[0]
    second = (await other.start(price_revision=1))[0]
    begin_ms = first.create_ms + 1_000
    await at(database, begin_ms, sessions.model_became_ready, "small")
    for minute in range(1, 5):
        await at(database, begin_ms + minute * 61_000, session_activity.look_at_sessions, holders_are_heard=True)
    await seal(database)
    ended = {"account_id": customer.account_id, "key_id": customer.key_id, "model": "small", "all_holders": True}
    await at(database, begin_ms + 301_500, sessions.stop_session, **ended)
    await seal(database)
    await at(database, begin_ms + 362_000, session_activity.look_at_sessions, holders_are_heard=True)
    return [await customer.get(first.session_id), await other.get(second.session_id)]


class _UndoError(Exception):
    """Carries what was found out of a unit that leaves nothing behind."""

    def __init__(self, proof: BillingProof) -> None:
        super().__init__()
        self.proof = proof


async def prove_tampered(
    database: Database, *changes: str | Callable[[Transaction], None], **kept: Iterable[Any]
) -> BillingProof:
    """Compare what the database would say after changes by somebody who has it in hand; then undo them."""

    def change_and_prove(tx: Transaction) -> None:
        drop_triggers(tx)
        for change in changes:
            if isinstance(change, str):
                assert tx.connection.execute(text(change)).rowcount, change
            else:
                change(tx)
        raise _UndoError(prove_billing(tx.connection, **kept))

    with pytest.raises(_UndoError) as undone:
        await database.write(change_and_prove)
    return undone.value.proof


def drop_triggers(tx: Transaction) -> None:
    """Let everybody change every row, as somebody who has the database in hand can."""
    postgres = tx.connection.dialect.name == "postgresql"
    for table in APPEND_ONLY:
        for name in [f"{table}_append_only"] if postgres else [f"{table}_no_update", f"{table}_no_delete"]:
            tx.connection.execute(text(f"DROP TRIGGER {name}" + (f" ON {table}" if postgres else "")))
