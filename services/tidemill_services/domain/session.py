"""The life of a session, and what it costs.

`PENDING → ACTIVE → STOPPING → ENDED`; a pending session that is stopped ends at once and costs nothing. The clock runs
while the session is active and its model is ready. Each function takes a session and an event and returns the session
after it; every pair of state and event is in `_STEPS` or refused.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tidemill_services.domain import pricing
from tidemill_services.domain.errors import FieldInvalidError, SessionEndedError

MAX_HOLDER_LENGTH = 128
MAX_LABELS = 16
MAX_LABEL_KEY_LENGTH = 64
MAX_LABEL_VALUE_LENGTH = 256
MIN_LIMIT_MS = 1_000
MAX_IDLE_TIMEOUT_MS = 86_400_000  # a day
MAX_MAX_DURATION_MS = 30 * 86_400_000
MAX_SPEND_MICROCREDITS = 10**15


class SessionState(enum.StrEnum):
    """Where a session is in its life."""

    PENDING = "PENDING"  # the model is waking; nothing is billed yet
    ACTIVE = "ACTIVE"  # the clock runs, unless the platform lost the model
    STOPPING = "STOPPING"  # stopped and billed; streams that still run may finish
    ENDED = "ENDED"


class EndReason(enum.StrEnum):
    """Why a session ended."""

    STOPPED = "STOPPED"  # somebody stopped it
    IDLE = "IDLE"
    MAX_DURATION = "MAX_DURATION"
    BUDGET = "BUDGET"
    LOST = "LOST"  # all holders were lost
    REVOKED = "REVOKED"  # its key was
    ADMIN = "ADMIN"  # an administrator ended it


class Liveness(enum.StrEnum):
    """How the server knows that a holder is still there."""

    NONE = "NONE"
    HEARTBEAT = "HEARTBEAT"


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """When a session ends by itself."""

    idle_timeout_ms: int = 900_000  # from the end of the last stream
    max_duration_ms: int = 43_200_000  # from the start
    max_spend_microcredits: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is out of bounds, by the names of the contract. Raises FieldInvalidError."""
        _check_duration("limits.idle_timeout", self.idle_timeout_ms, MAX_IDLE_TIMEOUT_MS)
        _check_duration("limits.max_duration", self.max_duration_ms, MAX_MAX_DURATION_MS)
        spend = self.max_spend_microcredits
        if spend is not None and not 1 <= spend <= MAX_SPEND_MICROCREDITS:
            name = "limits.max_spend_microcredits"
            raise FieldInvalidError(f"{name} must be 1 to {MAX_SPEND_MICROCREDITS:,}, got {spend:,}.", field=name)


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
    start_ms: int | None = None  # the clock first ran
    end_ms: int | None = None  # the stop was committed
    holders: tuple[str, ...] = ()  # who keeps it open, oldest first
    billed_ms: int = 0  # closed intervals of the clock
    clock_since_ms: int | None = None  # the open interval's start; None: the clock stands
    liveness: Liveness = Liveness.NONE
    labels: Mapping[str, str] = field(default_factory=dict)
    limits: SessionLimits = field(default_factory=SessionLimits)

    @property
    def is_open(self) -> bool:
        """Whether it can pay for a new generation now or once its model is ready."""
        return self.state in (SessionState.PENDING, SessionState.ACTIVE)


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
    """Return the bill until `now_ms`, the open interval included. Final once the session was stopped."""
    billed_ms = session.billed_ms + _open_interval(session, now_ms)
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


def holder_joined(session: Session, holder: str) -> Session:
    """A holder came. Raises SessionEndedError when the session was stopped."""
    if not session.is_open:
        raise SessionEndedError(f"The session {session.session_id} has ended: start a new one.")
    if holder in session.holders:
        return session
    return replace(session, holders=(*session.holders, holder))


def holder_left(session: Session, holder: str, now_ms: int) -> Session:
    """A holder went. The last one's going stops the session; one that never came changes nothing."""
    if holder not in session.holders:
        return session
    remaining = tuple(other for other in session.holders if other != holder)
    if not remaining:
        return stopped(session, EndReason.STOPPED, now_ms)
    return replace(session, holders=remaining)


def model_ready(session: Session, now_ms: int) -> Session:
    """The model has a ready replica: the clock starts, or goes on after a loss."""
    return _step(session, Event.MODEL_READY, now_ms)


def model_lost(session: Session, now_ms: int) -> Session:
    """The model has no ready replica any more: what the platform fails to serve is not billed."""
    return _step(session, Event.MODEL_LOST, now_ms)


def stopped(session: Session, reason: EndReason, now_ms: int) -> Session:
    """Stop for all holders. The bill is final from here on; a stop of a stopped session changes nothing."""
    after = _step(session, Event.STOPPED, now_ms)
    return after if after is session else replace(after, end_reason=reason, end_ms=now_ms, holders=())


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
    return replace(session, state=SessionState.ACTIVE, start_ms=now_ms, clock_since_ms=now_ms)


def _resume(session: Session, now_ms: int) -> Session:
    return session if session.clock_since_ms is not None else replace(session, clock_since_ms=now_ms)


def _pause(session: Session, now_ms: int) -> Session:
    if session.clock_since_ms is None:
        return session
    return replace(session, billed_ms=session.billed_ms + _open_interval(session, now_ms), clock_since_ms=None)


def _stop_pending(session: Session, _now_ms: int) -> Session:
    return replace(session, state=SessionState.ENDED)


def _stop_active(session: Session, now_ms: int) -> Session:
    return replace(_pause(session, now_ms), state=SessionState.STOPPING)


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


def _open_interval(session: Session, now_ms: int) -> int:
    """Milliseconds of the running interval; never negative, whatever the clock says."""
    return 0 if session.clock_since_ms is None else max(0, now_ms - session.clock_since_ms)


def _check_duration(name: str, duration_ms: int, max_ms: int) -> None:
    if not MIN_LIMIT_MS <= duration_ms <= max_ms:
        raise FieldInvalidError(
            f"{name} must be {MIN_LIMIT_MS // 1000} to {max_ms // 1000:,} seconds, got {duration_ms / 1000:,} seconds.",
            field=name,
        )
