"""Sessions as rows: reading them, writing what changed."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Row, Select, bindparam, delete, insert, select, update

from tidemill_services.domain.session import EndReason, Liveness, Session, SessionLimits, SessionState
from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import session_holders, sessions
from tidemill_services.store.topics import MODELS, model_topic, session_topic


def load(tx: Transaction, query: Select[Any]) -> list[Session]:
    """Return the sessions that a query on `sessions` finds, in its order, with their holders."""
    rows = tx.connection.execute(query).all()
    if not rows:
        return []
    holders = defaultdict(list)
    for session_id, holder in tx.connection.execute(
        select(session_holders.c.session_id, session_holders.c.holder)
        .where(session_holders.c.session_id.in_(query.with_only_columns(sessions.c.session_id)))
        .order_by(session_holders.c.join_ms, session_holders.c.holder)
    ):
        holders[session_id].append(holder)
    return [_session(row, holders[row.session_id]) for row in rows]


def load_one(tx: Transaction, query: Select[Any]) -> Session | None:
    """Return the first session that a query finds, or None."""
    found = load(tx, query.limit(1))
    return found[0] if found else None


def add(tx: Transaction, session: Session) -> None:
    """Write a new session."""
    tx.connection.execute(
        insert(sessions).values(
            session_id=session.session_id,
            account_id=session.account_id,
            key_id=session.key_id,
            model=session.model,
            price_microcredits_per_second=session.price_microcredits_per_second,
            create_ms=session.create_ms,
            liveness=session.liveness.value,
            labels=json.dumps(dict(session.labels), sort_keys=True),
            idle_timeout_ms=session.limits.idle_timeout_ms,
            max_duration_ms=session.limits.max_duration_ms,
            max_spend_microcredits=session.limits.max_spend_microcredits,
            **_changing(session),
        )
    )
    _add_holders(tx, session.session_id, session.holders)
    _notify(tx, [session])


def save(tx: Transaction, before: Sequence[Session], after: Sequence[Session]) -> int:
    """Write what the domain changed, session by session; return how many changed."""
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    if not changed:
        return 0
    tx.connection.execute(
        update(sessions).where(sessions.c.session_id == bindparam("changed_id")),
        [{"changed_id": new.session_id, **_changing(new)} for _, new in changed],
    )
    for old, new in changed:
        _remove_holders(tx, new.session_id, [holder for holder in old.holders if holder not in new.holders])
        _add_holders(tx, new.session_id, [holder for holder in new.holders if holder not in old.holders])
    _notify(tx, [new for _, new in changed])
    return len(changed)


def _remove_holders(tx: Transaction, session_id: str, holders: Sequence[str]) -> None:
    if holders:
        tx.connection.execute(
            delete(session_holders).where(
                session_holders.c.session_id == session_id, session_holders.c.holder.in_(holders)
            )
        )


def _add_holders(tx: Transaction, session_id: str, holders: Iterable[str]) -> None:
    rows = [{"session_id": session_id, "holder": holder, "join_ms": tx.now_ms} for holder in holders]
    if rows:
        tx.connection.execute(insert(session_holders), rows)


def _changing(session: Session) -> dict[str, Any]:
    return {
        "state": session.state.value,
        "end_reason": session.end_reason and session.end_reason.value,
        "start_ms": session.start_ms,
        "end_ms": session.end_ms,
        "billed_ms": session.billed_ms,
        "clock_since_ms": session.clock_since_ms,
    }


def _notify(tx: Transaction, changed: Sequence[Session]) -> None:
    for session in changed:
        tx.notify(session_topic(session.session_id))
        tx.notify(model_topic(session.model))
    tx.notify(MODELS)


def _session(row: Row[Any], holders: Sequence[str]) -> Session:
    return Session(
        session_id=row.session_id,
        account_id=row.account_id,
        key_id=row.key_id,
        model=row.model,
        price_microcredits_per_second=row.price_microcredits_per_second,
        create_ms=row.create_ms,
        state=SessionState(row.state),
        end_reason=EndReason(row.end_reason) if row.end_reason else None,
        start_ms=row.start_ms,
        end_ms=row.end_ms,
        holders=tuple(holders),
        billed_ms=row.billed_ms,
        clock_since_ms=row.clock_since_ms,
        liveness=Liveness(row.liveness),
        labels=json.loads(row.labels),
        limits=SessionLimits(
            idle_timeout_ms=row.idle_timeout_ms,
            max_duration_ms=row.max_duration_ms,
            max_spend_microcredits=row.max_spend_microcredits,
        ),
    )
