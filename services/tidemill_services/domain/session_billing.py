"""What a session's time becomes in the ledger: charges for what is over, and a hold for the minutes to come.

The charges of a clock that runs lag behind it by `SETTLE_LAG_MS`: what is noticed late, such as the loss of a replica's
host, is known by then, so that hardly ever something has to be given back. A stop, or any other event that stands the
clock still, charges to the millisecond.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tidemill_services.domain.ledger import Contra, EntryKind, Posting, Used
from tidemill_services.domain.pricing import billed_seconds, session_cost
from tidemill_services.domain.session import Session

HOLD_AHEAD_MS = 300_000
SETTLE_MS = 60_000
SETTLE_LAG_MS = 60_000
DAY_MS = 86_400_000  # UTC knows no leap seconds here


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of billed time: when it was, and the billed milliseconds at its begin and end."""

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
    """Return when the next charge of a running clock is due; None when the clock stands."""
    if session.clock_since_ms is None:
        return None
    return _row_end_ms(_settled_to_ms(session, session.clock_since_ms)) + SETTLE_LAG_MS


def is_used_up(session: Session, now_ms: int) -> bool:
    """Whether a running clock has come to the end of what is charged and held."""
    funded = funded_ms(session)
    if funded is None or session.clock_since_ms is None:
        return False
    return session.billed_ms + now_ms - session.clock_since_ms >= funded


def charged(before: Session, after: Session, certain_ms: int) -> tuple[Session, list[Posting]]:
    """Return the session with its time settled, and the charges for it, split at midnights.

    `before` and `after` are the session before and after an event; the same where only time has passed, which is
    charged until `certain_ms` once that is enough for a row. Where less is billed than was charged, the difference is
    given back.
    """
    since_ms = before.clock_since_ms
    if since_ms is None:
        return after, []
    begin_ms = _settled_to_ms(before, since_ms)
    billed_ms = after.billed_ms
    if after.clock_since_ms is not None:
        if certain_ms < _row_end_ms(begin_ms):
            return after, []
        billed_ms += certain_ms - since_ms
    parts = _split(_Part(begin_ms, begin_ms + billed_ms - before.settled_ms, before.settled_ms, billed_ms))
    postings = [_charge(after, part) for part in parts]
    held = after.held_microcredits + sum(posting.hold_microcredits for posting in postings)
    return replace(after, settled_ms=billed_ms, held_microcredits=held), postings


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
    """Return how much of what was charged may be given back by itself, while the clock runs on which it was charged."""
    seconds = billed_seconds(session.settled_ms) - billed_seconds(session.billed_ms)
    return max(0, seconds) * session.price_microcredits_per_second


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


def _settled_to_ms(session: Session, clock_since_ms: int) -> int:
    """Until when the running interval is settled: closed intervals are whole."""
    return clock_since_ms + session.settled_ms - session.billed_ms


def _row_end_ms(begin_ms: int) -> int:
    """Until when the next row of a running clock goes."""
    next_midnight_ms = (begin_ms // DAY_MS + 1) * DAY_MS
    return min(begin_ms + SETTLE_MS, next_midnight_ms)


def _split(part: _Part) -> Iterator[_Part]:
    """Split at midnights, UTC; time that was charged and is given back stays in one part."""
    while part.until_ms > (midnight_ms := (part.from_ms // DAY_MS + 1) * DAY_MS):
        billed_ms = part.settled_ms + midnight_ms - part.from_ms
        yield replace(part, until_ms=midnight_ms, billed_ms=billed_ms)
        part = replace(part, from_ms=midnight_ms, settled_ms=billed_ms)
    if part.billed_ms != part.settled_ms:
        yield part


def _charge(session: Session, part: _Part) -> Posting:
    seconds = billed_seconds(part.billed_ms) - billed_seconds(part.settled_ms)
    cost = seconds * session.price_microcredits_per_second
    used = Used(
        model=session.model,
        from_ms=min(part.from_ms, part.until_ms),
        until_ms=max(part.from_ms, part.until_ms),
        billed_seconds=seconds,
        price_microcredits_per_second=session.price_microcredits_per_second,
        price_revision=session.price_revision,
    )
    if part.billed_ms < part.settled_ms:
        reason = "The model had shown no life in this time."
        return Posting(EntryKind.REFUND, Contra.SESSIONS, -cost, subject=subject_of(session), used=used, reason=reason)
    return Posting(EntryKind.SESSION_CHARGE, Contra.SESSIONS, -cost, -cost, subject_of(session), used)


def _whole_seconds(microcredits: int, session: Session) -> int:
    price = session.price_microcredits_per_second
    return microcredits // price * price if price else 0
