"""Units of work on sessions. What a session may do is decided in `domain.session`; here it is found and kept."""

import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Select, func, literal_column, select, update

from tidemill_services.domain import session as rules
from tidemill_services.domain import session_stops
from tidemill_services.domain.errors import (
    FieldInvalidError,
    ModelNotFoundError,
    SessionDiffersError,
    SessionNotFoundError,
)
from tidemill_services.domain.session import EndReason, Liveness, Session, SessionState
from tidemill_services.domain.session_limits import GivenLimits, SessionLimits
from tidemill_services.store import session_funds, session_places, session_rows
from tidemill_services.store.database import Transaction
from tidemill_services.store.session_groups import change_each
from tidemill_services.store.tables import models, of_model, replicas, sessions

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1_000
_SESSION_ID = re.compile(r"[0-9a-f]{32}")
_IS_OPEN = sessions.c.end_ms.is_(None)
_IS_STOPPING = sessions.c.state == literal_column("'STOPPING'")  # as the partial index has it


LimitsChange = Callable[[SessionLimits], SessionLimits]
"""From a session's limits to those that its customer wants."""


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Some of an account's sessions, newest first."""

    sessions: tuple[Session, ...]
    next_page_token: str  # empty on the last page


def start_session(
    tx: Transaction,
    *,
    account_id: str,
    key_id: str,
    model: str,
    holder: str,
    price_microcredits_per_second: int,
    price_revision: int = 0,
    limits: GivenLimits = GivenLimits(),  # noqa: B008 -- frozen
    liveness: Liveness = Liveness.NONE,
    labels: Mapping[str, str] | None = None,
) -> tuple[Session, bool]:
    """Start a session of a key and model, or join the open one; the flag says that it was open before.

    The clock of a new one runs at once if the model has a ready replica. Price, limits and labels of an open one stay
    as they are; `limits` that are given and differ are refused. `liveness` is the holder's own.

    Raises FieldInvalidError, ModelNotFoundError, SessionDiffersError, LimitReachedError, InsufficientCreditsError.
    """
    rules.check_holder(holder)
    rules.check_labels(labels or {})
    own_limits = limits.over(SessionLimits())
    sign_ms = tx.now_ms if liveness is Liveness.HEARTBEAT else None
    existing = open_session_of(tx, key_id, model)
    if existing is not None and (existing := settle_session(tx, existing)).is_open:
        if limits.differ_from(existing.limits):
            raise SessionDiffersError
        joined = rules.holder_joined(existing, holder, sign_ms=sign_ms)
        return session_rows.save(tx, [existing], [joined])[0], True
    _require_model(tx, model)
    own_limits.check_price(price_microcredits_per_second)
    session_places.require_place(tx, account_id, key_id)
    session = Session(
        session_id=f"{tx.now_ms:012x}{secrets.token_hex(10)}",  # sorts by creation
        account_id=account_id,
        key_id=key_id,
        model=model,
        price_microcredits_per_second=price_microcredits_per_second,
        price_revision=price_revision,
        create_ms=tx.now_ms,
        holders=(holder,),
        signs={} if sign_ms is None else {holder: sign_ms},
        labels=dict(labels or {}),
        limits=own_limits,
    )
    if _has_ready_replica(tx, model):
        session = rules.model_ready(session, tx.now_ms)
    return session_rows.add(tx, session), False


def stop_session(
    tx: Transaction,
    *,
    account_id: str,
    key_id: str,
    session_id: str | None = None,
    model: str = "",
    holder: str = "",
    all_holders: bool = False,
    reason: EndReason = EndReason.STOPPED,
) -> tuple[Session, bool]:
    """Let a holder leave a session, or all of them; the flag says that it was stopped before.

    The session is the account's one of that id, else the key's open one of `model`, else the key's last one of `model`.
    When its last holder has left, its bill is final; call `finish_session` once none of its streams runs any more.

    Raises SessionNotFoundError.
    """
    if session_id is not None:
        before = get_session(tx, account_id, session_id)
    else:
        found = open_session_of(tx, key_id, model) or _last_session_of(tx, key_id, model)
        if found is None:
            raise SessionNotFoundError(f"This key has had no session of the model {model!r}.")
        before = found
    before = settle_session(tx, before)
    after = rules.stopped(before, reason, tx.now_ms) if all_holders else rules.holder_left(before, holder, tx.now_ms)
    if before.is_open and not after.is_open:
        after = session_stops.stopped(before, reason, tx.now_ms)
    (after,) = session_rows.save(tx, [before], [after])
    if before.is_open and not after.is_open:
        _mark_used(tx, after.model)
    return after, not before.is_open


def update_session(
    tx: Transaction, account_id: str, session_id: str, *, limits: LimitsChange, labels: Mapping[str, str] | None = None
) -> Session:
    """Change the limits of an open session, and its labels unless they are None.

    Raises SessionNotFoundError, SessionEndedError, and FieldInvalidError also for limits that are passed already.
    """
    before = settle_session(tx, get_session(tx, account_id, session_id))
    after = rules.changed(before, limits(before.limits), before.labels if labels is None else labels)
    session_stops.check_not_passed(after, tx.now_ms)
    return session_rows.save(tx, [before], [after])[0]


def settle_session(tx: Transaction, session: Session, *, holders_are_heard: bool = False) -> Session:
    """Have come what comes by itself until now; see `session_stops.settled`. Returns the session after it.

    A session whose credits are used up goes on where the account has more.
    """
    funded = session_funds.hold_more(tx, session)
    after = session_stops.settled(funded, tx.now_ms, holders_are_heard=holders_are_heard)
    (after,) = session_rows.save(tx, [session], [after])
    if session.is_open and not after.is_open:
        _mark_used(tx, after.model)
    return after


def stop_sessions_of_model(tx: Transaction, model: str, reason: EndReason) -> list[str]:
    """Stop every open session of a model, whoever holds it. Returns their ids; call `finish_session` for each."""
    stopped = _stop_each(tx, select(sessions).where(sessions.c.model == model, _IS_OPEN), reason)
    return [session.session_id for session in stopped]


def stop_sessions_of_keys(tx: Transaction, key_ids: Sequence[str], reason: EndReason) -> None:
    """Stop every open session of these keys, whoever holds it; call `finish_session` for each."""
    _stop_each(tx, select(sessions).where(sessions.c.key_id.in_(key_ids), _IS_OPEN), reason)


def list_stopped(tx: Transaction, session_ids: Iterable[str] = ()) -> list[Session]:
    """Return the sessions that are STOPPING, and those of `session_ids` that are not open any more."""
    stopping = session_rows.load(tx, select(sessions).where(_IS_STOPPING))
    is_named = sessions.c.session_id.in_(list(session_ids))  # apart, so that each query has its index
    ended = session_rows.load(tx, select(sessions).where(is_named, sessions.c.state == SessionState.ENDED.value))
    return stopping + ended


def finish_session(tx: Transaction, session_id: str) -> None:
    """End a stopped session whose last stream has ended. Repeats change nothing."""
    before = session_rows.load(tx, select(sessions).where(sessions.c.session_id == session_id))
    session_rows.save(tx, before, [rules.drained(session) for session in before])


def get_session(tx: Transaction, account_id: str, session_id: str) -> Session:
    """Return a session of this account. Raises SessionNotFoundError."""
    query = select(sessions).where(sessions.c.session_id == session_id, sessions.c.account_id == account_id)
    session = session_rows.load_one(tx, query) if _SESSION_ID.fullmatch(session_id) else None
    if session is None:
        raise SessionNotFoundError
    return session


def list_sessions(
    tx: Transaction,
    account_id: str,
    *,
    page_size: int = 0,
    page_token: str = "",
    model: str = "",
    open_only: bool = False,
) -> SessionPage:
    """Return a page of the account's sessions, newest first; one that starts meanwhile moves no page.

    `page_size` 0 means 50; `model` empty means all; `open_only` leaves out what is ENDED. Raises FieldInvalidError.
    """
    if not 0 <= page_size <= MAX_PAGE_SIZE:
        raise FieldInvalidError(f"page_size must be 0 to {MAX_PAGE_SIZE:,}, got {page_size:,}.", field="page_size")
    size = page_size or DEFAULT_PAGE_SIZE
    query = select(sessions).where(sessions.c.account_id == account_id)
    if page_token:
        if not _SESSION_ID.fullmatch(page_token):
            raise FieldInvalidError("page_token must be one that the last page returned.", field="page_token")
        query = query.where(sessions.c.session_id < page_token)
    if model:
        query = query.where(sessions.c.model == model)
    if open_only:
        query = query.where(sessions.c.state != SessionState.ENDED.value)
    found = session_rows.load(tx, query.order_by(sessions.c.session_id.desc()).limit(size + 1))
    page = tuple(found[:size])
    return SessionPage(page, page[-1].session_id if len(found) > size else "")


def open_session_of(tx: Transaction, key_id: str, model: str) -> Session | None:
    """Return the key's session of this model that is pending or active, or None."""
    return session_rows.load_one(
        tx, select(sessions).where(sessions.c.key_id == key_id, sessions.c.model == model, _IS_OPEN)
    )


def model_became_ready(tx: Transaction, model: str) -> None:
    """Run the clocks of all open sessions of a model; call it in the unit that makes its first replica READY."""

    def ready(session: Session) -> Session:
        return rules.model_ready(session, tx.now_ms)

    def settle_and_run(session: Session) -> Session:
        settled = settle_session(tx, session)
        return session_rows.save(tx, [settled], [ready(settled)])[0] if settled.is_open else settled

    query = select(sessions).where(sessions.c.model == model, _IS_OPEN)
    change_each(tx, session_rows.load(tx, query), settle_and_run, unsettled=ready)


def model_was_lost(tx: Transaction, model: str, *, lost_ms: int | None = None) -> None:
    """Stop the clocks of all open sessions of a model; call it in the unit that takes away its last READY replica.

    `lost_ms` is the last sign of life, where that lies back: time after it is not billed.
    """
    at_ms = tx.now_ms if lost_ms is None else min(lost_ms, tx.now_ms)

    def lose(session: Session) -> Session:
        funded = session_funds.hold_more(tx, session)
        return session_rows.save(tx, [session], [session_stops.model_lost(funded, at_ms)])[0]

    query = select(sessions).where(sessions.c.model == model, _IS_OPEN)
    unsettled = partial(session_stops.model_lost, at_ms=at_ms)
    change_each(tx, session_rows.load(tx, query), lose, unsettled=unsettled)


def count_open_by_model(tx: Transaction, model: str | None = None) -> dict[str, int]:
    """Return how many sessions each model, or one, has that are pending or active; models without any are left out."""
    query = select(sessions.c.model, func.count().label("num_open")).where(_IS_OPEN, of_model(sessions, model))
    return {row.model: row.num_open for row in tx.connection.execute(query.group_by(sessions.c.model))}


def _last_session_of(tx: Transaction, key_id: str, model: str) -> Session | None:
    query = select(sessions).where(sessions.c.key_id == key_id, sessions.c.model == model)
    return session_rows.load_one(tx, query.order_by(sessions.c.session_id.desc()))


def _stop_each(tx: Transaction, query: Select[Any], reason: EndReason) -> list[Session]:
    """Stop what a query finds; the clock of one that cannot be settled stands, so that it is not billed further."""

    def stop(session: Session) -> Session:
        funded = session_funds.hold_more(tx, session)
        return session_rows.save(tx, [session], [session_stops.stopped(funded, reason, tx.now_ms)])[0]

    found = session_rows.load(tx, query)
    stopped = change_each(tx, found, stop, unsettled=partial(session_stops.model_lost, at_ms=tx.now_ms))
    for model in sorted({session.model for session in found}):
        _mark_used(tx, model)
    return stopped


def _mark_used(tx: Transaction, model: str) -> None:
    tx.connection.execute(update(models).where(models.c.name == model).values(last_used_ms=tx.now_ms))


def _require_model(tx: Transaction, model: str) -> None:
    if tx.connection.execute(select(models.c.name).where(models.c.name == model)).first() is None:
        raise ModelNotFoundError(f"No model {model!r} is registered: `tidemill model list` shows what is.")


def _has_ready_replica(tx: Transaction, model: str) -> bool:
    query = select(replicas.c.replica_id).where(replicas.c.model == model, replicas.c.state == "READY").limit(1)
    return tx.connection.execute(query).first() is not None
