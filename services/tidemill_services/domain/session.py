"""The life of a session, and what it costs.

`PENDING → ACTIVE → STOPPING → ENDED`; a pending session that is stopped ends at once and costs nothing. The clock runs
while the session is active, its model is ready, and none of its generations has to wait for long. Each function takes a
session and an event and returns the session after it; every pair of state and event is in `_STEPS` or refused.
"""

import enum
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from tidemill_services.domain import pricing
from tidemill_services.domain.errors import FieldInvalidError, SessionEndedError
from tidemill_services.domain.session_clock import Clock, Interval
from tidemill_services.domain.session_limits import SessionLimits
from tidemill_services.domain.session_use import Use

MAX_HOLDER_LENGTH = 128
MAX_LABELS = 16
MAX_LABEL_KEY_LENGTH = 64
MAX_LABEL_VALUE_LENGTH = 256


class SessionState(enum.StrEnum):
    """Where a session is in its life."""

    PENDING = "PENDING"  # the model is waking; nothing is billed yet
    ACTIVE = "ACTIVE"  # the clock runs, unless the platform lost the model or has no slot for what the customer sent
    STOPPING = "STOPPING"  # stopped and billed; streams that still run may finish
    ENDED = "ENDED"


class EndReason(enum.StrEnum):
    """Why a session ended."""

    STOPPED = "STOPPED"  # somebody stopped it
    IDLE = "IDLE"  # nothing ran for its idle timeout
    MAX_DURATION = "MAX_DURATION"
    MAX_SPEND = "MAX_SPEND"
    BUDGET = "BUDGET"  # no credits could be held
    LOST = "LOST"  # all holders were lost
    REVOKED = "REVOKED"  # its key was
    ADMIN = "ADMIN"  # an administrator ended it


class Liveness(enum.StrEnum):
    """How the server knows that a holder is still there."""

    NONE = "NONE"
    HEARTBEAT = "HEARTBEAT"


@dataclass(frozen=True, slots=True)
class Activity:
    """What is known of a session's streams, in all processes."""

    last_ms: int | None = None  # something of it ran or waited then, and nothing later is known; None: nothing ever did
    busy_until_ms: int | None = None  # until when it is taken to run, unless its end is told before

    def is_busy(self, now_ms: int) -> bool:
        """Whether a stream runs or waits."""
        return self.busy_until_ms is not None and now_ms < self.busy_until_ms


@dataclass(frozen=True, slots=True)
class Session:
    """A customer's paid right to use one model for a time. Times are milliseconds since 1970."""

    session_id: str
    account_id: str
    key_id: str
    model: str
    price_microcredits_per_second: int
    create_ms: int
    state: SessionState = SessionState.PENDING
    end_reason: EndReason | None = None
    start_ms: int | None = None  # its model was first ready
    end_ms: int | None = None  # the stop was committed, or the moment of the limit that ended it
    holders: tuple[str, ...] = ()  # who keeps it open, oldest first
    clock: Clock = field(default_factory=Clock)
    signs: Mapping[str, int] = field(default_factory=dict)  # the last sign of life of each holder that gives any
    labels: Mapping[str, str] = field(default_factory=dict)
    limits: SessionLimits = field(default_factory=SessionLimits)
    activity: Activity = field(default_factory=Activity)
    price_revision: int = 0
    settled_ms: int = 0  # billed time that stands in the ledger
    held_microcredits: int = 0  # set aside in the ledger for what comes
    use: Use = field(default_factory=Use)  # what processes told of
    settled_use: Use = field(default_factory=Use)  # what of that stands in the ledger

    @property
    def billed_ms(self) -> int:
        """Closed intervals of the clock."""
        return self.clock.billed_ms

    @property
    def clock_since_ms(self) -> int | None:
        """The open interval's start; None: the clock stands."""
        return self.clock.since_ms

    @property
    def is_open(self) -> bool:
        """Whether it can pay for a new generation now or once its model is ready."""
        return self.state in (SessionState.PENDING, SessionState.ACTIVE)

    @property
    def liveness(self) -> Liveness:
        """HEARTBEAT when it ends with its lost holders; NONE while one keeps it open that gives no signs of life."""
        return Liveness.HEARTBEAT if self.holders and len(self.signs) == len(self.holders) else Liveness.NONE


@dataclass(frozen=True, slots=True)
class Bill:
    """What a session has cost until some time."""

    billed_ms: int
    billed_seconds: int
    price_microcredits_per_second: int
    cost_microcredits: int
    final: bool


class SessionTransitionError(Exception):
    """An event came to a session in a state that does not know it: a fault of ours, never the caller's."""


def bill(session: Session, now_ms: int) -> Bill:
    """Return the bill until `now_ms`. Final once the session was stopped."""
    billed_ms = session.clock.billed_until(now_ms) if session.is_open else session.clock.billed_ms
    return Bill(
        billed_ms=billed_ms,
        billed_seconds=pricing.billed_seconds(billed_ms),
        price_microcredits_per_second=session.price_microcredits_per_second,
        cost_microcredits=pricing.session_cost(billed_ms, session.price_microcredits_per_second),
        final=not session.is_open,
    )


def check_holder(holder: str) -> None:
    """Raise FieldInvalidError unless this can name a holder."""
    if not 1 <= len(holder) <= MAX_HOLDER_LENGTH or not holder.isprintable():
        raise FieldInvalidError(f"holder must be 1 to {MAX_HOLDER_LENGTH} printable characters.", field="holder")


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise FieldInvalidError unless these can be a session's labels."""
    if len(labels) > MAX_LABELS:
        raise FieldInvalidError(f"labels may be at most {MAX_LABELS}, got {len(labels)}.", field="labels")
    for key, value in labels.items():
        if not 1 <= len(key) <= MAX_LABEL_KEY_LENGTH or len(value) > MAX_LABEL_VALUE_LENGTH:
            raise FieldInvalidError(
                f"a label's key must be 1 to {MAX_LABEL_KEY_LENGTH} characters and its value at most "
                f"{MAX_LABEL_VALUE_LENGTH}.",
                field="labels",
            )


# The events. Repeating one changes nothing.


def holder_joined(session: Session, holder: str, *, sign_ms: int | None = None) -> Session:
    """A holder came, or came again. With `sign_ms`, which is now, it gives signs of life from here on.

    Raises SessionEndedError when the session was stopped.
    """
    _require_open(session)
    signs = {other: last_ms for other, last_ms in session.signs.items() if other != holder}
    if sign_ms is not None:
        signs[holder] = sign_ms
    holders = session.holders if holder in session.holders else (*session.holders, holder)
    return replace(session, holders=holders, signs=signs)


def holder_left(session: Session, holder: str, now_ms: int) -> Session:
    """A holder went. The last one's going stops the session; one that never came changes nothing."""
    if holder not in session.holders:
        return session
    remaining = without_holders(session, {holder})
    return remaining if remaining.holders else stopped(session, EndReason.STOPPED, now_ms)


def without_holders(session: Session, gone: Collection[str]) -> Session:
    """The session with its other holders; there must be one."""
    return replace(
        session,
        holders=tuple(holder for holder in session.holders if holder not in gone),
        signs={holder: sign_ms for holder, sign_ms in session.signs.items() if holder not in gone},
    )


def changed(session: Session, limits: SessionLimits, labels: Mapping[str, str]) -> Session:
    """The customer set other limits and labels. Raises SessionEndedError, FieldInvalidError."""
    _require_open(session)
    limits.check_price(session.price_microcredits_per_second)
    check_labels(labels)
    return replace(session, limits=limits, labels=dict(labels))


def model_ready(session: Session, now_ms: int) -> Session:
    """The model has a ready replica: the clock starts, or goes on after a loss."""
    return _step(session, Event.MODEL_READY, now_ms)


def model_lost(session: Session, now_ms: int) -> Session:
    """The model has no ready replica any more: what the platform fails to serve is not billed."""
    return _step(session, Event.MODEL_LOST, now_ms)


def waits_ended(session: Session, waits: Iterable[Interval]) -> Session:
    """Generations had waited for a slot for more than a second in these times. A bill that is final stays as it is."""
    return replace(session, clock=session.clock.waits_ended(waits)) if session.is_open else session


def used(session: Session, use: Use) -> Session:
    """More generations have ended, perhaps after the stop: those of the free drain count too."""
    return replace(session, use=session.use + use)


def stopped(session: Session, reason: EndReason, now_ms: int) -> Session:
    """Stop for all holders. The bill is final from here on; a stop of a stopped session changes nothing."""
    after = _step(session, Event.STOPPED, now_ms)
    return after if after is session else replace(after, end_reason=reason, end_ms=now_ms, holders=(), signs={})


def drained(session: Session) -> Session:
    """The last stream of a stopped session has ended."""
    return _step(session, Event.DRAINED, 0)


class Event(enum.Enum):
    """What moves a session from state to state."""

    MODEL_READY = enum.auto()
    MODEL_LOST = enum.auto()
    STOPPED = enum.auto()
    DRAINED = enum.auto()


def _step(session: Session, event: Event, now_ms: int) -> Session:
    try:
        step = _STEPS[session.state, event]
    except KeyError:
        raise SessionTransitionError(
            f"session {session.session_id} is {session.state} and cannot take {event.name}"
        ) from None
    return step(session, now_ms)


def _start(session: Session, now_ms: int) -> Session:
    return replace(_resume(session, now_ms), state=SessionState.ACTIVE, start_ms=now_ms)


def _resume(session: Session, now_ms: int) -> Session:
    return replace(session, clock=session.clock.model_ready(now_ms))


def _pause(session: Session, now_ms: int) -> Session:
    return replace(session, clock=session.clock.model_lost(now_ms))


def _stop_pending(session: Session, now_ms: int) -> Session:
    return replace(session, state=SessionState.ENDED, clock=session.clock.stopped(now_ms))


def _stop_active(session: Session, now_ms: int) -> Session:
    return replace(session, state=SessionState.STOPPING, clock=session.clock.stopped(now_ms))


def _end(session: Session, _now_ms: int) -> Session:
    return replace(session, state=SessionState.ENDED)


def _stay(session: Session, _now_ms: int) -> Session:
    return session


_STEPS: Mapping[tuple[SessionState, Event], Callable[[Session, int], Session]] = {
    (SessionState.PENDING, Event.MODEL_READY): _start,
    (SessionState.PENDING, Event.MODEL_LOST): _stay,
    (SessionState.PENDING, Event.STOPPED): _stop_pending,
    (SessionState.ACTIVE, Event.MODEL_READY): _resume,
    (SessionState.ACTIVE, Event.MODEL_LOST): _pause,
    (SessionState.ACTIVE, Event.STOPPED): _stop_active,
    (SessionState.STOPPING, Event.STOPPED): _stay,
    (SessionState.STOPPING, Event.DRAINED): _end,
    (SessionState.ENDED, Event.STOPPED): _stay,
    (SessionState.ENDED, Event.DRAINED): _stay,
}


def _require_open(session: Session) -> None:
    if not session.is_open:
        raise SessionEndedError(f"The session {session.session_id} has ended: start a new one.")
