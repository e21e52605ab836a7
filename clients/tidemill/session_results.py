"""What the methods return of sessions: frozen values, read from the wire in this file only.

Money is an integer of microcredits; see `tidemill.results` for the rest.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from tidemill.reading import duration_of, name_of, time_of
from tidemill.v1 import session_pb2


@dataclass(frozen=True, slots=True)
class Bill:
    """What a session has cost; it grows until `final`."""

    session: str
    """sessions/{session}."""
    model: str
    """models/{model}."""
    billed_milliseconds: int
    billed_seconds: int
    """Whole seconds that are charged: the milliseconds rounded up, once per session."""
    price_microcredits_per_second: int
    cost_microcredits: int
    final: bool
    """Whether the session ended, so that nothing here changes any more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a session ends by itself."""

    idle_timeout: timedelta
    """From the end of the last stream."""
    max_duration: timedelta
    """From when its clock first ran."""
    max_spend_microcredits: int | None
    """None: no limit."""


@dataclass(frozen=True, slots=True)
class Session:
    """A paid right to use one model for a time."""

    name: str
    """sessions/{session}."""
    model: str
    """models/{model}."""
    state: str
    """pending, active, stopping or ended."""
    end_reason: str
    """Why it ended: stopped, idle, max_duration, max_spend, budget, lost, revoked or admin; empty while it is open."""
    create_time: datetime | None
    start_time: datetime | None
    """When its model was first ready; None while it is pending."""
    end_time: datetime | None
    holders: tuple[str, ...]
    bill: Bill
    limits: Limits
    labels: dict[str, str]
    already_active: bool = False
    """Whether `start_session` found it open."""

    @property
    def is_open(self) -> bool:
        """Whether it still pays for new generations."""
        return self.state in {"pending", "active"}


@dataclass(frozen=True, slots=True)
class SessionWarning:
    """A limit of which 50, 80 or 95 % are used up, or a holder that has been silent for long."""

    end_reason: str
    """The stop that it warns of: idle, max_duration, max_spend, budget or lost."""
    percent: int
    holder: str
    """The silent holder; empty for a limit."""


@dataclass(frozen=True, slots=True)
class Meter:
    """One reading of a session's live meter."""

    session: Session
    """With its bill until now."""
    idle: timedelta | None
    """Since the end of the last stream; None while one runs."""
    unbilled_wait: timedelta | None
    """For how long the clock has stood because a generation waits for a slot; None when none does for long."""
    time_to_end: timedelta | None
    """Until it ends by itself, if nothing changes; None once it was stopped."""
    next_end_reason: str
    """Why it would end then: idle, max_duration, max_spend, budget or lost."""
    warnings: tuple[SessionWarning, ...]


def session_of(message: session_pb2.Session, *, already_active: bool = False) -> Session:
    """Read a session."""
    bill = message.bill
    return Session(
        name=message.name,
        model=message.model,
        state=name_of(session_pb2.Session.State, message.state, "STATE_"),
        end_reason=_end_reason(message.end_reason),
        create_time=time_of(message, "create_time"),
        start_time=time_of(message, "start_time"),
        end_time=time_of(message, "end_time"),
        holders=tuple(message.holders),
        bill=Bill(
            session=message.name,
            model=message.model,
            billed_milliseconds=bill.billed_milliseconds,
            billed_seconds=bill.billed_seconds,
            price_microcredits_per_second=bill.price_microcredits_per_second,
            cost_microcredits=bill.cost_microcredits,
            final=bill.final,
        ),
        limits=_limits_of(message.limits),
        labels=dict(message.labels),
        already_active=already_active,
    )


def meter_of(message: session_pb2.SessionMeter) -> Meter:
    """Read a reading."""
    return Meter(
        session=session_of(message.session),
        idle=duration_of(message, "idle_duration"),
        unbilled_wait=duration_of(message, "unbilled_wait_duration"),
        time_to_end=duration_of(message, "time_to_end"),
        next_end_reason=_end_reason(message.end_reason),
        warnings=tuple(
            SessionWarning(_end_reason(warning.end_reason), warning.percent, warning.holder)
            for warning in message.warnings
        ),
    )


def _limits_of(message: session_pb2.SessionLimits) -> Limits:
    return Limits(
        idle_timeout=message.idle_timeout.ToTimedelta(),
        max_duration=message.max_duration.ToTimedelta(),
        max_spend_microcredits=message.max_spend_microcredits if message.HasField("max_spend_microcredits") else None,
    )


def _end_reason(value: session_pb2.Session.EndReason) -> str:
    return name_of(session_pb2.Session.EndReason, value, "END_REASON_")
