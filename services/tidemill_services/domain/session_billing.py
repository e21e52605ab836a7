"""What a session's time becomes in the ledger: charges for what is over, and a hold for the minutes to come.

The charges of an open session lag behind its clock by `SETTLE_LAG_MS`: what is noticed late, such as the loss of a
replica's host or a wait for a slot, is known by then, so that hardly ever something has to be given back. A stop
charges to the millisecond.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from tidemill_services.domain.ledger import Contra, EntryKind, Posting, Used
from tidemill_services.domain.pricing import billed_seconds, session_cost
from tidemill_services.domain.session import Session, SessionState, bill
from tidemill_services.domain.session_clock import Clock, Interval, clipped
from tidemill_services.domain.session_use import Use

HOLD_AHEAD_MS = 300_000
SETTLE_MS = 60_000
SETTLE_LAG_MS = 60_000
NEWS_MS = 180_000  # for so long news of a session's past is waited for; more than the lag and a charge
DAY_MS = 86_400_000  # UTC knows no leap seconds here


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of billed time, pauses included: when it was, and the billed milliseconds at its begin and end."""

    from_ms: int
    until_ms: int
    settled_ms: int
    billed_ms: int


def funded_ms(session: Session) -> int | None:
    """Return how much billed time the ledger has charged or holds credits for; None when it costs nothing."""
    price = session.price_microcredits_per_second
    if not price:
        return None
    return (billed_seconds(session.settled_ms) + session.held_microcredits // price) * 1000


def next_settlement_ms(session: Session) -> int | None:
    """Return when the next charge is due; None when all is charged and the clock stands."""
    from_ms = _settled_to_ms(session)
    return None if from_ms is None else _row_end_ms(from_ms) + SETTLE_LAG_MS


def is_used_up(session: Session, now_ms: int) -> bool:
    """Whether the clock has gone beyond what is charged and held, though it may stand again by now."""
    funded = funded_ms(session)
    used_up_ms = None if funded is None else session.clock.passes_ms(funded)
    return used_up_ms is not None and used_up_ms <= now_ms


def charged(session: Session, before: Clock, now_ms: int, certain_ms: int) -> tuple[Session, list[Posting]]:
    """Return the session with its time and its use settled, and the rows for them, split at midnights.

    The time of an open one is charged until `certain_ms` once that is enough for a row, and its use with it. Where less
    is billed than was charged, as the clock was known `before`, the difference is given back. What ran in the drain has
    a row of its own, for nothing.
    """
    back_ms = session.settled_ms - bill(session, now_ms).billed_ms
    if back_ms > 0:
        postings = [_given_back(session, _charged_last(session, before, now_ms, back_ms), back_ms)]
        settled = replace(session, settled_ms=session.settled_ms - back_ms)
    else:
        parts = _due_parts(session, certain_ms)
        postings = [_charge(session, part) for part in parts]
        settled = replace(session, settled_ms=parts[-1].billed_ms if parts else session.settled_ms)
    use = session.use - session.settled_use
    if use != Use() and session.state is SessionState.ENDED and not postings:
        end_ms = session.end_ms or now_ms
        postings = [_charge(session, _Part(end_ms, end_ms, session.settled_ms, session.settled_ms))]
    if postings:
        postings[-1] = replace(postings[-1], used=replace(postings[-1].used, **asdict(use)))
        settled = replace(settled, settled_use=session.use)
    held = session.held_microcredits + sum(posting.hold_microcredits for posting in postings)
    return replace(settled, held_microcredits=held), postings


def without_past(session: Session, now_ms: int) -> Session:
    """The session without what news can no longer change, and what no charge needs any more."""
    settled_to_ms = _settled_to_ms(session)
    before_ms = now_ms - NEWS_MS if session.is_open else now_ms
    if settled_to_ms is not None:
        before_ms = min(before_ms, settled_to_ms)
    return replace(session, clock=session.clock.without_past(before_ms))


def hold_wanted(session: Session, now_ms: int) -> int:
    """Return what shall be held for a session: the price of the time that is not settled yet and of five minutes more.

    No more than its own limits let it cost; nothing once it was stopped.
    """
    if not session.is_open:
        return 0
    running_ms = 0 if session.clock_since_ms is None else max(0, now_ms - session.clock_since_ms)
    unsettled_ms = max(0, session.billed_ms + running_ms - session.settled_ms)
    wanted = session_cost(unsettled_ms + HOLD_AHEAD_MS, session.price_microcredits_per_second)
    max_spend = session.limits.max_spend_microcredits
    if max_spend is None:
        return wanted
    spent = session_cost(session.settled_ms, session.price_microcredits_per_second)
    return max(0, min(wanted, _whole_seconds(max_spend - spent, session)))


def hold_possible(session: Session, wanted: int, available_microcredits: int) -> int:
    """Return what can be held: all that is wanted, or as many whole seconds more as the account has credits for."""
    more = wanted - session.held_microcredits
    return (
        wanted
        if more <= available_microcredits
        else (session.held_microcredits + _whole_seconds(available_microcredits, session))
    )


def returnable(session: Session) -> int:
    """Return how much of what was charged may be given back by itself yet: for the time of which news may come."""
    if not session.is_open:
        return 0
    certain_ms = min(session.settled_ms, session.clock.past_ms)
    return (billed_seconds(session.settled_ms) - billed_seconds(certain_ms)) * session.price_microcredits_per_second


def hold_change(session: Session, hold_microcredits: int) -> list[Posting]:
    """Return the row that changes what is held for a session; none where nothing changes."""
    change = hold_microcredits - session.held_microcredits
    if not change:
        return []
    kind = EntryKind.HOLD if change > 0 else EntryKind.RELEASE
    used = Used(model=session.model)
    return [Posting(kind, Contra.HOLDS, hold_microcredits=change, subject=subject_of(session), used=used)]


def subject_of(session: Session) -> str:
    """What the rows of a session are for."""
    return f"sessions/{session.session_id}"


def _settled_to_ms(session: Session) -> int | None:
    """Where the next charge begins; None when all is charged and the clock stands."""
    return session.clock.passes_ms(session.settled_ms)


def _row_end_ms(begin_ms: int) -> int:
    """Until when the next row of a running clock goes."""
    next_midnight_ms = (begin_ms // DAY_MS + 1) * DAY_MS
    return min(begin_ms + SETTLE_MS, next_midnight_ms)


def _due_parts(session: Session, certain_ms: int) -> list[_Part]:
    from_ms = _settled_to_ms(session)
    if from_ms is None or (session.is_open and certain_ms < _row_end_ms(from_ms)):
        return []
    until_ms = certain_ms if session.end_ms is None else session.end_ms
    unsettled = clipped(session.clock.after(session.settled_ms), until_ms=until_ms)
    parts: list[_Part] = []
    billed_ms = session.settled_ms
    for begin_ms, end_ms in (day for piece in unsettled for day in _days(*piece)):
        part = _Part(begin_ms, end_ms, billed_ms, billed_ms + end_ms - begin_ms)
        billed_ms = part.billed_ms
        if parts and parts[-1].from_ms // DAY_MS == begin_ms // DAY_MS:
            parts[-1] = replace(parts[-1], until_ms=end_ms, billed_ms=billed_ms)
        else:
            parts.append(part)
    return parts


def _days(from_ms: int, until_ms: int) -> Iterator[tuple[int, int]]:
    """Split at midnights, UTC."""
    while until_ms > (midnight_ms := (from_ms // DAY_MS + 1) * DAY_MS):
        yield from_ms, midnight_ms
        from_ms = midnight_ms
    yield from_ms, until_ms


def _charge(session: Session, part: _Part) -> Posting:
    seconds = billed_seconds(part.billed_ms) - billed_seconds(part.settled_ms)
    cost = seconds * session.price_microcredits_per_second
    used = _used(session, part.from_ms, part.until_ms, seconds)
    return Posting(EntryKind.SESSION_CHARGE, Contra.SESSIONS, -cost, -cost, subject_of(session), used)


def _given_back(session: Session, time: Interval, back_ms: int) -> Posting:
    seconds = billed_seconds(session.settled_ms) - billed_seconds(session.settled_ms - back_ms)
    cost = seconds * session.price_microcredits_per_second
    reason = "The model had shown no life in this time, or the session had waited for a slot."
    used = _used(session, *time, -seconds)
    return Posting(EntryKind.REFUND, Contra.SESSIONS, cost, subject=subject_of(session), used=used, reason=reason)


def _charged_last(session: Session, before: Clock, now_ms: int, back_ms: int) -> Interval:
    """When the last `back_ms` were that were charged."""
    left_ms, begin_ms = back_ms, None
    for from_ms, until_ms in before.after(session.settled_ms - back_ms):
        begin_ms = from_ms if begin_ms is None else begin_ms
        if left_ms <= until_ms - from_ms:
            return begin_ms, from_ms + left_ms
        left_ms -= until_ms - from_ms
    return now_ms - back_ms, now_ms  # it was known to stand still by then


def _used(session: Session, from_ms: int, until_ms: int, seconds: int) -> Used:
    return Used(
        model=session.model,
        from_ms=from_ms,
        until_ms=until_ms,
        billed_seconds=seconds,
        price_microcredits_per_second=session.price_microcredits_per_second,
        price_revision=session.price_revision,
    )


def _whole_seconds(microcredits: int, session: Session) -> int:
    price = session.price_microcredits_per_second
    return microcredits // price * price if price else 0
