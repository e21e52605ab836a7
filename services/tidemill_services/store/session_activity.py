"""Units of work on what keeps sessions from ending by themselves: streams that run, holders that are alive.

Each process tells, every few seconds at most, of which sessions something runs in it; a process that is silent for
`ACTIVITY_LEASE_MS` has ended, and what it told last counts. With the same news it tells what changes their bills: waits
for a slot, and what ran.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, Select, bindparam, delete, func, insert, or_, select, update

from tidemill_services.domain import session as rules
from tidemill_services.domain.session import Session
from tidemill_services.domain.session_clock import Interval
from tidemill_services.domain.session_use import Use
from tidemill_services.store import session_rows
from tidemill_services.store.database import Transaction
from tidemill_services.store.session_groups import change_each
from tidemill_services.store.sessions import settle_session
from tidemill_services.store.tables import counted_news, session_activity, session_holders, sessions
from tidemill_services.store.topics import session_topic

ACTIVITY_LEASE_MS = 6_000
_MAX_LOOKS = 256  # sessions in one unit of work


@dataclass(frozen=True, slots=True)
class CountedNews:
    """What counts once: told again under its number, because nobody knows whether it came, it changes nothing."""

    number: int  # grows from one to the next
    waits_ago_ms: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)  # that ended; see `waiting`
    uses: Mapping[str, Use] = field(default_factory=dict)  # by session: the generations that ended


@dataclass(frozen=True, slots=True)
class News:
    """What one process tells."""

    running: Collection[str] = ()  # sessions of which something runs or waits; all of this process
    ended_ago_ms: Mapping[str, int] = field(default_factory=dict)  # by session: since the end of its last stream
    signs_ago_ms: Mapping[tuple[str, str], int] = field(default_factory=dict)  # by session and holder
    # By session, of the running ones: for how long one of its waits for a slot has been longer than it may be.
    waiting_ago_ms: Mapping[str, int] = field(default_factory=dict)
    counted: CountedNews | None = None


def tell_activity(tx: Transaction, process_id: str, news: News) -> None:
    """Keep what a process tells, in place of what it told before; ends and signs of life only move on."""
    own = session_activity.c.process_id == process_id
    columns = (session_activity.c.session_id, session_activity.c.waiting_since_ms)
    before = {row.session_id: row.waiting_since_ms for row in tx.connection.execute(select(*columns).where(own))}
    tx.connection.execute(delete(session_activity).where(own))
    waiting = {session_id: tx.now_ms - ago_ms for session_id, ago_ms in news.waiting_ago_ms.items()}
    if news.running:
        rows = [
            {
                "session_id": session_id,
                "process_id": process_id,
                "seen_ms": tx.now_ms,
                "expire_ms": tx.now_ms + ACTIVITY_LEASE_MS,
                "waiting_since_ms": waiting.get(session_id),
            }
            for session_id in news.running
        ]
        tx.connection.execute(insert(session_activity), rows)
    _note_ends(tx, news.ended_ago_ms)
    _note_signs(tx, news.signs_ago_ms)
    is_new = news.counted is not None and _is_new(tx, process_id, news.counted.number)
    counted = news.counted if is_new and news.counted is not None else CountedNews(0)
    waits = {
        session_id: [(tx.now_ms - from_ago_ms, tx.now_ms - until_ago_ms) for from_ago_ms, until_ago_ms in agos]
        for session_id, agos in counted.waits_ago_ms.items()
    }
    waited = {session_id for session_id, since_ms in before.items() if since_ms is not None}
    _count(tx, waits, counted.uses, others=waiting.keys() ^ waited)
    for session_id in before.keys() ^ set(news.running):
        tx.notify(session_topic(session_id))


def forget_process(tx: Transaction, process_prefix: str) -> None:
    """Note that the processes of that prefix have ended: nothing of them runs any more."""
    theirs = session_activity.c.process_id.startswith(process_prefix, autoescape=True)
    _forget(tx, tx.connection.execute(select(session_activity).where(theirs)).all())


def look_at_sessions(tx: Transaction, *, holders_are_heard: bool) -> int | None:
    """End what has come to its end by itself; return how many milliseconds to wait for the next such look.

    None: no session is open. Several processes may do so at once: each session is ended by the first.
    """
    silent = select(session_activity).where(session_activity.c.expire_ms <= tx.now_ms)
    _forget(tx, tx.connection.execute(silent).all())

    def settle(session: Session) -> Session:
        after = settle_session(tx, session, holders_are_heard=holders_are_heard)
        if after.is_open:
            session_rows.save_next_look(tx, after)
        return after

    change_each(tx, session_rows.load(tx, _due(tx)), settle)
    return time_to_look_ms(tx)


def time_to_look_ms(tx: Transaction) -> int | None:
    """Return how many milliseconds to wait until a session is to be looked at; None when none is open."""
    next_ms = tx.connection.execute(select(func.min(sessions.c.look_ms)).where(sessions.c.end_ms.is_(None))).scalar()
    return None if next_ms is None else max(0, next_ms - tx.now_ms)


def _due(tx: Transaction) -> Select[Any]:
    is_due = (sessions.c.end_ms.is_(None), sessions.c.look_ms <= tx.now_ms)
    return select(sessions).where(*is_due).order_by(sessions.c.look_ms, sessions.c.session_id).limit(_MAX_LOOKS)


def _forget(tx: Transaction, rows: Sequence[Row[Any]]) -> None:
    """Take rows away that nobody keeps up any more; when they were told is the last that is known of their streams.

    A wait is taken to have lasted for as long as nobody could know of its end.
    """
    waits: defaultdict[str, list[Interval]] = defaultdict(list)
    for row in rows:
        is_row = (session_activity.c.session_id == row.session_id, session_activity.c.process_id == row.process_id)
        tx.connection.execute(delete(session_activity).where(*is_row))
        if row.waiting_since_ms is not None:
            waits[row.session_id].append((row.waiting_since_ms, min(row.expire_ms, tx.now_ms)))
    _note_ends(tx, {row.session_id: tx.now_ms - row.seen_ms for row in sorted(rows, key=lambda row: row.seen_ms)})
    _count(tx, waits, {})


def _is_new(tx: Transaction, process_id: str, number: int) -> bool:
    """Whether this was not counted yet. The first news of a host's new life end those of its former ones."""
    last = select(counted_news.c.number).where(counted_news.c.process_id == process_id)
    last_number = tx.connection.execute(last).scalar_one_or_none()
    if last_number is None:
        host = process_id.rpartition(".")[0]
        theirs = counted_news.c.process_id.startswith(f"{host}.", autoescape=True)
        tx.connection.execute(delete(counted_news).where(theirs))
        tx.connection.execute(insert(counted_news).values(process_id=process_id, number=number))
        return True
    if number <= last_number:
        return False
    own = counted_news.c.process_id == process_id
    tx.connection.execute(update(counted_news).where(own).values(number=number))
    return True


def _count(
    tx: Transaction, waits: Mapping[str, Sequence[Interval]], uses: Mapping[str, Use], *, others: Collection[str] = ()
) -> None:
    """Have waits and uses change their sessions; see to `others` of which it changed whether they wait now."""
    ids = sorted({*waits, *uses, *others})
    if not ids:
        return
    before = session_rows.load(tx, select(sessions).where(sessions.c.session_id.in_(ids)))
    after = [
        rules.used(rules.waits_ended(session, waits.get(session.session_id, ())), uses.get(session.session_id, Use()))
        for session in before
    ]
    for session in session_rows.save(tx, before, after):
        if session.is_open and session.session_id in others:
            session_rows.save_next_look(tx, session)
            tx.notify(session_topic(session.session_id))


def _note_ends(tx: Transaction, ended_ago_ms: Mapping[str, int]) -> None:
    if ended_ago_ms:
        is_news = or_(sessions.c.last_active_ms.is_(None), sessions.c.last_active_ms < bindparam("at_ms"))
        tx.connection.execute(
            update(sessions)
            .where(sessions.c.session_id == bindparam("ended_id"), is_news)
            .values(last_active_ms=bindparam("at_ms")),
            [{"ended_id": session_id, "at_ms": tx.now_ms - ago_ms} for session_id, ago_ms in ended_ago_ms.items()],
        )


def _note_signs(tx: Transaction, signs_ago_ms: Mapping[tuple[str, str], int]) -> None:
    if signs_ago_ms:
        of_holder = (
            session_holders.c.session_id == bindparam("sign_of"),
            session_holders.c.holder == bindparam("sign_by"),
            session_holders.c.sign_ms < bindparam("at_ms"),  # which is null for one that gives none
        )
        tx.connection.execute(
            update(session_holders).where(*of_holder).values(sign_ms=bindparam("at_ms")),
            [
                {"sign_of": session_id, "sign_by": holder, "at_ms": tx.now_ms - ago_ms}
                for (session_id, holder), ago_ms in signs_ago_ms.items()
            ],
        )
