"""Units of work on the audit trail. It is written in the transaction of what it tells."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, insert, select

from tidemill_services.domain.audit import AuditEvent, Change
from tidemill_services.store.database import Transaction
from tidemill_services.store.paging import page_size_of, sequence_of
from tidemill_services.store.tables import audit_events


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Some events, newest first."""

    events: tuple[AuditEvent, ...]
    next_page_token: str  # empty on the last page


def record(
    tx: Transaction, *, actor: str, action: str, account_id: str, resource: str, changes: Sequence[Change] = ()
) -> None:
    """Note an act. `actor` is the name of the key that acted, empty for the server itself."""
    last = tx.connection.execute(select(func.max(audit_events.c.sequence))).scalar_one()
    tx.connection.execute(
        insert(audit_events).values(
            sequence=(last or 0) + 1,  # writers take turns, so nobody else takes this one
            event_ms=tx.now_ms,
            actor=actor,
            action=action,
            account_id=account_id,
            resource=resource,
            changes=json.dumps([(each.field, each.old_value, each.new_value) for each in changes]),
        )
    )


def list_events(tx: Transaction, account_id: str, *, page_size: int = 0, page_token: str = "") -> AuditPage:
    """Return a page of what concerns an account, or of all for an empty one; newest first. Raises FieldInvalidError."""
    size = page_size_of(page_size)
    query = select(audit_events)
    if account_id:
        query = query.where(audit_events.c.account_id == account_id)
    if page_token:
        query = query.where(audit_events.c.sequence < sequence_of(page_token))
    rows = tx.connection.execute(query.order_by(audit_events.c.sequence.desc()).limit(size + 1)).all()
    events = tuple(
        AuditEvent(
            sequence=row.sequence,
            event_ms=row.event_ms,
            actor=row.actor,
            action=row.action,
            account_id=row.account_id,
            resource=row.resource,
            changes=tuple(Change(*change) for change in json.loads(row.changes)),
        )
        for row in rows[:size]
    )
    return AuditPage(events, str(events[-1].sequence) if len(rows) > size else "")
