"""When a session ends by itself, and why: facts in, decision out.

A stop that comes by itself is billed to the moment of its limit, however late it is noticed: after a restart, or while
the store was away.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tidemill_services.domain import session as rules
from tidemill_services.domain import session_billing
from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.domain.session import Activity, Bill, EndReason, Session

HOLDER_WARNED_MS = 180_000  # without a sign of life of a holder
HOLDER_LOST_MS = 600_000
HOLDER_BILLED_MS = 60_000  # after the last sign of life of the last holder
WARN_PERCENTS = (95, 80, 50)  # of a limit
IDLE_GRACE_MS = 1_000  # in which a process may tell that something has begun
_FIELDS = {
    EndReason.IDLE: "limits.idle_timeout",
    EndReason.MAX_DURATION: "limits.max_duration",
    EndReason.MAX_SPEND: "limits.max_spend_microcredits",
}


@dataclass(frozen=True, slots=True)
class AutomaticStop:
    """A stop that comes by itself if nothing changes."""

    due_ms: int
    reason: EndReason
    end_ms: int  # until when it is billed; before `due_ms` where holders were lost


@dataclass(frozen=True, slots=True)
class SessionWarning:
    """A limit of which a good part is used up."""

    reason: EndReason  # the stop that it warns of
    percent: int
    holder: str = ""  # that gave no sign of life


def next_automatic_stop(session: Session, now_ms: int) -> AutomaticStop | None:
    """Return the first stop that comes by itself, in the past when it is late; None when it was stopped.

    A stream that runs or waits keeps a session from being idle and its holders from being lost.
    """
    return min(_stops(session, now_ms), key=lambda stop: stop.due_ms, default=None)


def next_look_ms(session: Session, now_ms: int) -> int:
    """Return until when nothing ends, is charged or lost, whatever is heard of the session meanwhile."""
    quiet = replace(session, activity=Activity(session.activity.last_ms))  # for who told last may be dead
    looks = [last_ms + HOLDER_LOST_MS for last_ms in _last_signs(quiet, now_ms).values()]
    settlement_ms = session_billing.next_settlement_ms(session)
    if session.clock.waiting_since_ms is not None:  # who told so may be dead, too
        looks.append(max(now_ms, session.activity.busy_until_ms or 0))
    if settlement_ms is not None:  # what is due and not done waits for a sign of life
        looks.append(settlement_ms if settlement_ms > now_ms else now_ms + session_billing.SETTLE_MS)
    return min([*(stop.due_ms + _grace_ms(stop) for stop in _stops(quiet, now_ms)), *looks], default=now_ms)


def certain_until_ms(session: Session, now_ms: int) -> int:
    """Return until when the time of a running clock will be billed, whatever is heard of the session later."""
    return min([now_ms - session_billing.SETTLE_LAG_MS, *(stop.end_ms for stop in _stops(session, now_ms))])


def settled(session: Session, now_ms: int, *, holders_are_heard: bool = False) -> Session:
    """Return the session after what has come by itself until now: it ended, or holders were lost.

    Holders are given up only by who could have heard of them: `holders_are_heard`.
    """
    due = [
        stop
        for stop in _stops(session, now_ms)
        if stop.due_ms <= now_ms and (holders_are_heard or stop.reason is not EndReason.LOST)
    ]
    if any(stop.due_ms + _grace_ms(stop) <= now_ms for stop in due):
        first = min(due, key=lambda stop: stop.due_ms)
        return rules.stopped(session, first.reason, first.end_ms)
    if not holders_are_heard:
        return session
    last_signs = _last_signs(session, now_ms)
    lost = {holder for holder, last_ms in last_signs.items() if last_ms + HOLDER_LOST_MS <= now_ms}
    return rules.without_holders(session, lost) if lost and len(lost) < len(session.holders) else session


def stopped(session: Session, reason: EndReason, now_ms: int) -> Session:
    """Stop for all holders; a limit that has passed, though nobody has noticed yet, comes first."""
    stop = next_automatic_stop(session, now_ms)
    if stop is None or now_ms < stop.due_ms:
        return rules.stopped(session, reason, now_ms)
    return rules.stopped(session, stop.reason, stop.end_ms)


def model_lost(session: Session, at_ms: int) -> Session:
    """The model has no ready replica any more since `at_ms`: its clock stands.

    It stands from a limit on that has passed, and where all holders are silent, from where they would be billed to:
    should they be heard again, the time in between is theirs.
    """
    return rules.model_lost(session, min([at_ms, *(stop.end_ms for stop in _stops(session, at_ms))]))


def bill_now(session: Session, now_ms: int) -> Bill:
    """Return the bill until now; a limit that has passed is not exceeded, though nobody has noticed yet."""
    stop = next_automatic_stop(session, now_ms)
    return rules.bill(session, now_ms if stop is None or now_ms < stop.due_ms else stop.end_ms)


def check_not_passed(session: Session, now_ms: int) -> None:
    """Raise FieldInvalidError when a limit would end the session at once: who wants that stops it."""
    stop = next_automatic_stop(session, now_ms)
    reason = None if stop is None or now_ms < stop.due_ms else stop.reason
    spend_ms = _spend_ms(session)
    if spend_ms is not None and session.clock.billed_until(now_ms) > spend_ms:  # also of a clock that stands
        reason = EndReason.MAX_SPEND
    if reason in _FIELDS:
        field = _FIELDS[reason]
        raise FieldInvalidError(f"{field} is passed already: it would end the session at once. Stop it.", field=field)


def idle_ms(session: Session, now_ms: int) -> int | None:
    """Return for how long nothing has run; None while something does, and before the clock first ran."""
    if not session.is_open or session.start_ms is None or session.activity.is_busy(now_ms):
        return None
    return max(0, now_ms - _idle_since_ms(session, session.start_ms))


def warnings(session: Session, now_ms: int) -> tuple[SessionWarning, ...]:
    """Return the limits of which 50 % are used up, or more, and the holders that have been silent for long."""
    if not session.is_open:
        return ()
    reached = (
        (reason, next((percent for percent in WARN_PERCENTS if used * 100 >= limit * percent), 0))
        for reason, used, limit in _used(session, now_ms)
    )
    silent = {
        holder: now_ms - last_ms
        for holder, last_ms in _last_signs(session, now_ms).items()
        if now_ms - last_ms >= HOLDER_WARNED_MS
    }
    return (
        *(SessionWarning(reason, percent) for reason, percent in reached if percent),
        *(
            SessionWarning(EndReason.LOST, min(100, silent_ms * 100 // HOLDER_LOST_MS), holder)
            for holder, silent_ms in silent.items()
        ),
    )


def _stops(session: Session, now_ms: int) -> Iterator[AutomaticStop]:
    """All stops that come by themselves, those that win a tie first."""
    if not session.is_open:
        return
    paid_until = ((_spend_ms(session), EndReason.MAX_SPEND), (session_billing.funded_ms(session), EndReason.BUDGET))
    for paid_ms, reason in paid_until:  # also of a clock that went beyond it and stands since then
        passed_ms = None if paid_ms is None else session.clock.passes_ms(paid_ms)
        if passed_ms is not None:
            yield _at(passed_ms, reason)
    yield _at(_since_ms(session) + session.limits.max_duration_ms, EndReason.MAX_DURATION)
    if session.activity.is_busy(now_ms):
        return
    if session.start_ms is not None:
        yield _at(_idle_since_ms(session, session.start_ms) + session.limits.idle_timeout_ms, EndReason.IDLE)
    if session.signs and len(session.signs) == len(session.holders):
        last_ms = max(_last_signs(session, now_ms).values())
        end_ms = max(last_ms + HOLDER_BILLED_MS, _since_ms(session))
        yield AutomaticStop(max(last_ms + HOLDER_LOST_MS, end_ms), EndReason.LOST, end_ms)


def _used(session: Session, now_ms: int) -> Iterator[tuple[EndReason, int, int]]:
    """How much of each limit is used up, and the limit, in milliseconds."""
    spend_ms = _spend_ms(session)
    if spend_ms:
        yield EndReason.MAX_SPEND, bill_now(session, now_ms).billed_ms, spend_ms
    funded_ms = session_billing.funded_ms(session)
    if funded_ms is not None and session.clock_since_ms is not None and (spend_ms is None or funded_ms < spend_ms):
        left_ms = max(0, funded_ms - bill_now(session, now_ms).billed_ms)
        yield EndReason.BUDGET, max(0, session_billing.HOLD_AHEAD_MS - left_ms), session_billing.HOLD_AHEAD_MS
    yield EndReason.MAX_DURATION, now_ms - _since_ms(session), session.limits.max_duration_ms
    yield EndReason.IDLE, idle_ms(session, now_ms) or 0, session.limits.idle_timeout_ms


def _at(due_ms: int, reason: EndReason) -> AutomaticStop:
    return AutomaticStop(due_ms, reason, due_ms)


def _grace_ms(stop: AutomaticStop) -> int:
    return IDLE_GRACE_MS if stop.reason is EndReason.IDLE else 0


def _since_ms(session: Session) -> int:
    """From when the longest duration counts: its clock's start, or as long as that never ran, its own."""
    return session.create_ms if session.start_ms is None else session.start_ms


def _spend_ms(session: Session) -> int | None:
    """The time that the spending limit pays for; None without a limit, or a price."""
    spend, price = session.limits.max_spend_microcredits, session.price_microcredits_per_second
    return None if spend is None or not price else spend // price * 1000


def _idle_since_ms(session: Session, start_ms: int) -> int:
    return max(start_ms, session.activity.last_ms or 0)


def _last_signs(session: Session, now_ms: int) -> dict[str, int]:
    """The last sign of life of each holder that gives any; what runs speaks for all of them."""
    running_ms = now_ms if session.activity.is_busy(now_ms) else session.activity.last_ms or 0
    return {holder: max(last_ms, running_ms) for holder, last_ms in session.signs.items()}
