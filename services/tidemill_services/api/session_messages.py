"""Between sessions and their messages."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tidemill.v1 import session_pb2, usage_pb2
from tidemill_services.api.convert import duration, milliseconds, timestamp
from tidemill_services.domain import session_stops
from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.domain.session import Bill, EndReason, Liveness, Session, SessionState
from tidemill_services.domain.session_limits import GivenLimits, SessionLimits

STATES = {
    SessionState.PENDING: session_pb2.Session.STATE_PENDING,
    SessionState.ACTIVE: session_pb2.Session.STATE_ACTIVE,
    SessionState.STOPPING: session_pb2.Session.STATE_STOPPING,
    SessionState.ENDED: session_pb2.Session.STATE_ENDED,
}
END_REASONS = {
    None: session_pb2.Session.END_REASON_UNSPECIFIED,
    EndReason.STOPPED: session_pb2.Session.END_REASON_STOPPED,
    EndReason.IDLE: session_pb2.Session.END_REASON_IDLE,
    EndReason.MAX_DURATION: session_pb2.Session.END_REASON_MAX_DURATION,
    EndReason.MAX_SPEND: session_pb2.Session.END_REASON_MAX_SPEND,
    EndReason.BUDGET: session_pb2.Session.END_REASON_BUDGET,
    EndReason.LOST: session_pb2.Session.END_REASON_LOST,
    EndReason.REVOKED: session_pb2.Session.END_REASON_REVOKED,
    EndReason.ADMIN: session_pb2.Session.END_REASON_ADMIN,
}
_LIMIT_FIELDS = {
    "limits.idle_timeout": "idle_timeout_ms",
    "limits.max_duration": "max_duration_ms",
    "limits.max_spend_microcredits": "max_spend_microcredits",
}
UPDATED_PATHS = {*_LIMIT_FIELDS, "limits", "labels"}
LIVENESSES = {
    Liveness.NONE: session_pb2.Session.LIVENESS_NONE,
    Liveness.HEARTBEAT: session_pb2.Session.LIVENESS_HEARTBEAT,
}


def session_message(session: Session, now_ms: int) -> session_pb2.Session:
    """A session with its bill until `now_ms`."""
    return session_pb2.Session(
        name=f"sessions/{session.session_id}",
        model=f"models/{session.model}",
        state=STATES[session.state],
        end_reason=END_REASONS[session.end_reason],
        create_time=timestamp(session.create_ms),
        start_time=timestamp(session.start_ms),
        end_time=timestamp(session.end_ms),
        holders=session.holders,
        bill=_bill(session_stops.bill_now(session, now_ms)),
        limits=session_pb2.SessionLimits(
            idle_timeout=duration(session.limits.idle_timeout_ms / 1000),
            max_duration=duration(session.limits.max_duration_ms / 1000),
            max_spend_microcredits=session.limits.max_spend_microcredits,
        ),
        labels=session.labels,
        liveness=LIVENESSES[session.liveness],
    )


def meter_message(session: Session, now_ms: int, sequence_number: int) -> session_pb2.SessionMeter:
    """What the live meter shows at `now_ms`."""
    stop = session_stops.next_automatic_stop(session, now_ms)
    idle_ms = session_stops.idle_ms(session, now_ms)
    waiting_since_ms = session.clock.waiting_since_ms
    return session_pb2.SessionMeter(
        sequence_number=sequence_number,
        session=session_message(session, now_ms),
        idle_duration=duration(None if idle_ms is None else idle_ms / 1000),
        time_to_end=duration(None if stop is None else max(0, stop.due_ms - now_ms) / 1000),
        end_reason=END_REASONS[None if stop is None else stop.reason],
        warnings=[
            session_pb2.SessionWarning(
                end_reason=END_REASONS[warning.reason], percent=warning.percent, holder=warning.holder
            )
            for warning in session_stops.warnings(session, now_ms)
        ],
        unbilled_wait_duration=duration(None if waiting_since_ms is None else max(0, now_ms - waiting_since_ms) / 1000),
    )


def given_limits(message: session_pb2.SessionLimits) -> GivenLimits:
    """What a caller says of a session's limits."""
    return GivenLimits(
        idle_timeout_ms=milliseconds(message.idle_timeout) if message.HasField("idle_timeout") else None,
        max_duration_ms=milliseconds(message.max_duration) if message.HasField("max_duration") else None,
        max_spend_microcredits=(message.max_spend_microcredits if message.HasField("max_spend_microcredits") else None),
    )


def liveness_of(request: session_pb2.StartSessionRequest) -> Liveness:
    """How the holder will show that it is there. Raises FieldInvalidError."""
    if request.liveness == session_pb2.Session.LIVENESS_UNSPECIFIED:
        return Liveness.NONE
    for liveness, value in LIVENESSES.items():
        if value == request.liveness:
            return liveness
    raise FieldInvalidError(
        f"liveness is {request.liveness}; it may be LIVENESS_NONE or LIVENESS_HEARTBEAT.", field="liveness"
    )


def limits_change(request: session_pb2.UpdateSessionRequest) -> Callable[[SessionLimits], SessionLimits]:
    """What an update does to a session's limits. Raises FieldInvalidError for a mask that names something else."""
    paths = set(request.update_mask.paths)
    if not paths or not paths <= UPDATED_PATHS:
        raise FieldInvalidError(
            f"update_mask must name what to change, and nothing but {', '.join(sorted(UPDATED_PATHS))}.",
            field="update_mask",
        )
    given, default = given_limits(request.session.limits), SessionLimits()
    values: dict[str, Any] = {}
    for path, name in _LIMIT_FIELDS.items():
        if path in paths or "limits" in paths:
            value = getattr(given, name)
            values[name] = getattr(default, name) if value is None else value
    return lambda limits: replace(limits, **values)


def _bill(bill: Bill) -> usage_pb2.Bill:
    return usage_pb2.Bill(
        billed_milliseconds=bill.billed_ms,
        billed_seconds=bill.billed_seconds,
        price_microcredits_per_second=bill.price_microcredits_per_second,
        cost_microcredits=bill.cost_microcredits,
        final=bill.final,
    )
