"""Sessions as rows: reading them, writing what changed."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import Row, Select, bindparam, delete, func, insert, select, update

from tidemill_services.domain.session import Activity, EndReason, Session, SessionState
from tidemill_services.domain.session_clock import Clock, Interval
from tidemill_services.domain.session_facts import SessionStarted, SessionStopped
from tidemill_services.domain.session_limits import SessionLimits
from tidemill_services.domain.session_stops import next_look_ms
from tidemill_services.domain.session_use import Use
from tidemill_services.store import session_funds
from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import session_activity, session_holders, sessions
from tidemill_services.store.topics import MODELS, key_sessions_topic, model_topic, session_topic


def load(tx: Transaction, query: Select[Any]) -> list[Session]:
    """Return the sessions that a query on `sessions` finds, in its order, with their holders and what runs of them."""
    rows = tx.connection.execute(query).all()
    if not rows:
        return []
    ids = query.with_only_columns(sessions.c.session_id)
    holders, activities = _holders(tx, ids), _activities(tx, ids)
    return [session_of(row, holders[row.session_id], *activities[row.session_id]) for row in rows]


def load_one(tx: Transaction, query: Select[Any]) -> Session | None:
    """Return the first session that a query finds, or None."""
    found = load(tx, query.limit(1))
    return found[0] if found else None


def add(tx: Transaction, session: Session) -> Session:
    """Write a new session, with the credits for its first minutes held. Raises InsufficientCreditsError."""
    funded = session_funds.fund_start(tx, session)
    tx.connection.execute(
        insert(sessions).values(
            session_id=session.session_id,
            account_id=session.account_id,
            key_id=session.key_id,
            model=session.model,
            price_microcredits_per_second=session.price_microcredits_per_second,
            price_revision=session.price_revision,
            create_ms=session.create_ms,
            **_changing(tx, funded),
        )
    )
    _add_holders(tx, funded, funded.holders)
    _notify(tx, [funded])
    tx.notify(key_sessions_topic(session.key_id))
    tx.facts.append(SessionStarted(session.model))
    return funded


def save(tx: Transaction, before: Sequence[Session], after: Sequence[Session]) -> list[Session]:
    """Write what the domain changed, session by session, and charge what is due. Returns them as they are then."""
    settled = [session_funds.settle(tx, old, new) for old, new in zip(before, after, strict=True)]
    changed = [(old, new) for old, new in zip(before, settled, strict=True) if old != new]
    if not changed:
        return settled
    tx.connection.execute(
        update(sessions).where(sessions.c.session_id == bindparam("changed_id")),
        [{"changed_id": new.session_id, **_changing(tx, new)} for _, new in changed],
    )
    for old, new in changed:
        _remove_holders(tx, new.session_id, [holder for holder in old.holders if not _is_kept(old, new, holder)])
        _add_holders(tx, new, [holder for holder in new.holders if not _is_kept(old, new, holder)])
    _notify(tx, [new for _, new in changed])
    tx.facts += [
        SessionStopped(new.model, new.end_reason) for old, new in changed if old.is_open and new.end_reason is not None
    ]
    return settled


def save_next_look(tx: Transaction, session: Session) -> None:
    """Note when the session is to be looked at again, though nothing of it changed."""
    next_look = {"look_ms": next_look_ms(session, tx.now_ms)}
    tx.connection.execute(update(sessions).where(sessions.c.session_id == session.session_id).values(next_look))


def save_unsettled(tx: Transaction, session: Session, *, look_ms: int) -> None:
    """Write a session's clock without charging for it; that is left to a look at that time."""
    values = {**_changing(tx, session), "look_ms": look_ms}
    tx.connection.execute(update(sessions).where(sessions.c.session_id == session.session_id).values(values))
    _notify(tx, [session])


def _is_kept(old: Session, new: Session, holder: str) -> bool:
    return holder in old.holders and holder in new.holders and old.signs.get(holder) == new.signs.get(holder)


def _remove_holders(tx: Transaction, session_id: str, holders: Sequence[str]) -> None:
    if holders:
        tx.connection.execute(
            delete(session_holders).where(
                session_holders.c.session_id == session_id, session_holders.c.holder.in_(holders)
            )
        )


def _add_holders(tx: Transaction, session: Session, holders: Iterable[str]) -> None:
    rows = [
        {
            "session_id": session.session_id,
            "holder": holder,
            "join_ms": tx.now_ms,
            "sign_ms": session.signs.get(holder),
        }
        for holder in holders
    ]
    if rows:
        tx.connection.execute(insert(session_holders), rows)


def _holders(tx: Transaction, ids: Select[Any]) -> defaultdict[str, dict[str, int | None]]:
    """The holders of each session, oldest first, with the last sign of life of those that give any."""
    holders: defaultdict[str, dict[str, int | None]] = defaultdict(dict)
    columns = (session_holders.c.session_id, session_holders.c.holder, session_holders.c.sign_ms)
    for session_id, holder, sign_ms in tx.connection.execute(
        select(*columns)
        .where(session_holders.c.session_id.in_(ids))
        .order_by(session_holders.c.join_ms, session_holders.c.holder)
    ):
        holders[session_id][holder] = sign_ms
    return holders


def _activities(tx: Transaction, ids: Select[Any]) -> defaultdict[str, tuple[Activity, int | None]]:
    """What the processes say of each session, and since when one of its waits for a slot has been too long."""
    activities: defaultdict[str, tuple[Activity, int | None]] = defaultdict(lambda: (Activity(), None))
    columns = (
        session_activity.c.session_id,
        func.max(session_activity.c.seen_ms),
        func.max(session_activity.c.expire_ms),
        func.min(session_activity.c.waiting_since_ms),
    )
    for session_id, seen_ms, expire_ms, waiting_since_ms in tx.connection.execute(
        select(*columns).where(session_activity.c.session_id.in_(ids)).group_by(session_activity.c.session_id)
    ):
        activities[session_id] = Activity(seen_ms, expire_ms), waiting_since_ms
    return activities


def _changing(tx: Transaction, session: Session) -> dict[str, Any]:
    return {
        "state": session.state.value,
        "end_reason": session.end_reason and session.end_reason.value,
        "start_ms": session.start_ms,
        "end_ms": session.end_ms,
        "billed_ms": session.clock.past_ms,
        "settled_ms": session.settled_ms,
        "held_microcredits": session.held_microcredits,
        "clock_since_ms": session.clock.ready_since_ms,
        "clock_ready": json.dumps(session.clock.ready),
        "clock_waited": json.dumps(session.clock.waited),
        **asdict(session.use),
        **{f"settled_{name}": count for name, count in asdict(session.settled_use).items()},
        "labels": json.dumps(dict(session.labels), sort_keys=True),
        "idle_timeout_ms": session.limits.idle_timeout_ms,
        "max_duration_ms": session.limits.max_duration_ms,
        "max_spend_microcredits": session.limits.max_spend_microcredits,
        "look_ms": next_look_ms(session, tx.now_ms),
    }


def _notify(tx: Transaction, changed: Sequence[Session]) -> None:
    for session in changed:
        tx.notify(session_topic(session.session_id))
        tx.notify(model_topic(session.model))
    tx.notify(MODELS)


def session_of(
    row: Row[Any],
    holders: Mapping[str, int | None] = MappingProxyType({}),
    activity: Activity = Activity(),  # noqa: B008 -- frozen
    waiting_since_ms: int | None = None,
) -> Session:
    """A row of the table as a session; without the rest, one that nobody holds and that does nothing."""
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
        clock=Clock(
            past_ms=row.billed_ms,
            ready=_intervals(row.clock_ready),
            ready_since_ms=row.clock_since_ms,
            waited=_intervals(row.clock_waited),
            waiting_since_ms=waiting_since_ms if row.end_ms is None else None,
        ),
        signs={holder: sign_ms for holder, sign_ms in holders.items() if sign_ms is not None},
        labels=json.loads(row.labels),
        limits=SessionLimits(
            idle_timeout_ms=row.idle_timeout_ms,
            max_duration_ms=row.max_duration_ms,
            max_spend_microcredits=row.max_spend_microcredits,
        ),
        price_revision=row.price_revision,
        settled_ms=row.settled_ms,
        held_microcredits=row.held_microcredits,
        use=Use(row.num_generations, row.prompt_tokens, row.completion_tokens),
        settled_use=Use(row.settled_num_generations, row.settled_prompt_tokens, row.settled_completion_tokens),
        activity=replace(activity, last_ms=_latest(row.last_active_ms, activity.last_ms)),
    )


def _intervals(text: str) -> tuple[Interval, ...]:
    return tuple((from_ms, until_ms) for from_ms, until_ms in json.loads(text))


def _latest(*times_ms: int | None) -> int | None:
    return max((time_ms for time_ms in times_ms if time_ms is not None), default=None)
