"""Between sessions and their messages."""

from tidemill.v1 import session_pb2, usage_pb2
from tidemill_services.api.convert import timestamp
from tidemill_services.domain import session as rules
from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.domain.session import EndReason, Liveness, Session, SessionState

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
    EndReason.BUDGET: session_pb2.Session.END_REASON_BUDGET,
    EndReason.LOST: session_pb2.Session.END_REASON_LOST,
    EndReason.REVOKED: session_pb2.Session.END_REASON_REVOKED,
    EndReason.ADMIN: session_pb2.Session.END_REASON_ADMIN,
}
LIVENESSES = {
    Liveness.NONE: session_pb2.Session.LIVENESS_NONE,
    Liveness.HEARTBEAT: session_pb2.Session.LIVENESS_HEARTBEAT,
}


def session_message(session: Session, now_ms: int) -> session_pb2.Session:
    """A session with its bill until `now_ms`; without its limits, which nothing holds it to yet."""
    return session_pb2.Session(
        name=f"sessions/{session.session_id}",
        model=f"models/{session.model}",
        state=STATES[session.state],
        end_reason=END_REASONS[session.end_reason],
        create_time=timestamp(session.create_ms),
        start_time=timestamp(session.start_ms),
        end_time=timestamp(session.end_ms),
        holders=session.holders,
        bill=_bill(rules.bill(session, now_ms)),
        labels=session.labels,
        liveness=LIVENESSES[session.liveness],
    )


def _bill(bill: rules.Bill) -> usage_pb2.Bill:
    return usage_pb2.Bill(
        billed_milliseconds=bill.billed_ms,
        billed_seconds=bill.billed_seconds,
        price_microcredits_per_second=bill.price_microcredits_per_second,
        cost_microcredits=bill.cost_microcredits,
        final=bill.final,
    )


def check_served(request: session_pb2.StartSessionRequest) -> None:
    """Refuse what the contract has and the server does not do yet. Raises FieldInvalidError."""
    if request.HasField("limits"):
        raise FieldInvalidError("limits are not served yet: leave them out, and stop the session.", field="limits")
    if request.liveness == session_pb2.Session.LIVENESS_HEARTBEAT:
        raise FieldInvalidError("liveness HEARTBEAT is not served yet: send NONE.", field="liveness")
    if request.liveness not in (session_pb2.Session.LIVENESS_UNSPECIFIED, session_pb2.Session.LIVENESS_NONE):
        raise FieldInvalidError(f"liveness is {request.liveness}; it may be LIVENESS_NONE.", field="liveness")
