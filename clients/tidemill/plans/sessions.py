"""Sessions: start, stop, change, look, watch, and say that one is alive."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.field_mask_pb2 import FieldMask

from tidemill import methods
from tidemill.session_results import Session, meter_of, session_of
from tidemill.steps import Deadline, Emit, Line, Plan, Read, build, check_count, opened, request_id, unary
from tidemill.v1 import session_pb2

_PAGE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a caller wants of a session; None says nothing."""

    idle_timeout: timedelta | None = None
    max_duration: timedelta | None = None
    max_spend_microcredits: int | None = None
    labels: Mapping[str, str] | None = None

    def limits(self) -> session_pb2.SessionLimits | None:
        """As the wire wants them; None when nothing is said of any. Raises FieldInvalidError."""
        given = {name: getattr(self, name) for name in ("idle_timeout", "max_duration", "max_spend_microcredits")}
        if all(value is None for value in given.values()):
            return None
        return build(session_pb2.SessionLimits, "limits.", **given)


def start(model: str, wanted: Wanted, *, holder: str, is_alive: bool = False, deadline: Deadline) -> Plan[Session]:
    """Start a session, or join the open one as `holder` (empty: the key itself).

    With `is_alive` the holder gives signs of life from here on, and is lost when it does not.
    """
    liveness = session_pb2.Session.LIVENESS_HEARTBEAT if is_alive else session_pb2.Session.LIVENESS_NONE
    request = build(
        session_pb2.StartSessionRequest,
        model=model,
        request_id=request_id(),
        holder=holder,
        limits=wanted.limits(),
        labels=wanted.labels,
        liveness=liveness,
    )
    reply = yield from unary(methods.START_SESSION, request, deadline)
    return session_of(reply.session, already_active=reply.already_active)


def stop(name: str, model: str, *, holder: str, all_holders: bool, deadline: Deadline) -> Plan[Session]:
    """Take `holder` away from the session of that name, or from the key's of `model`; return it with its bill."""
    request = build(
        session_pb2.StopSessionRequest,
        name=name,
        model=model,
        request_id=request_id(),
        holder=holder,
        all_holders=all_holders,
    )
    reply = yield from unary(methods.STOP_SESSION, request, deadline)
    return session_of(reply.session)


def update(name: str, wanted: Wanted, *, deadline: Deadline) -> Plan[Session]:
    """Change what is wanted otherwise; a spending limit of 0 is none."""
    limits = wanted.limits()
    paths = [f"limits.{field.name}" for field, _ in limits.ListFields()] if limits is not None else []
    if limits is not None and wanted.max_spend_microcredits == 0:
        limits.ClearField("max_spend_microcredits")
    if wanted.labels is not None:
        paths.append("labels")
    request = build(
        session_pb2.UpdateSessionRequest,
        session=build(session_pb2.Session, name=name, limits=limits, labels=wanted.labels),
        update_mask=FieldMask(paths=paths),
        request_id=request_id(),
    )
    message = yield from unary(methods.UPDATE_SESSION, request, deadline)
    return session_of(message)


def heartbeat(name: str, *, holder: str, deadline: Deadline) -> Plan[float]:
    """Say that a holder is alive; return the seconds until it should say so again."""
    request = build(session_pb2.HeartbeatSessionRequest, name=name, holder=holder)
    reply = yield from unary(methods.HEARTBEAT_SESSION, request, deadline)
    return reply.next_heartbeat.ToTimedelta().total_seconds()


def watch(name: str, line: Line, *, deadline: Deadline) -> Plan[None]:
    """Emit the live meter's readings, until the session has ended or the line is closed."""
    request = build(session_pb2.WatchSessionRequest, name=name)
    call, message = yield from opened(methods.WATCH_SESSION, request, deadline, line)
    try:
        while message is not None:
            yield Emit(meter_of(message))
            message = yield Read(call)
    finally:
        call.cancel()


def get(name: str, *, deadline: Deadline) -> Plan[Session]:
    """Fetch one session."""
    message = yield from unary(methods.GET_SESSION, build(session_pb2.GetSessionRequest, name=name), deadline)
    return session_of(message)


def list_all(model: str, *, open_only: bool, limit: int, deadline: Deadline) -> Plan[list[Session]]:
    """Fetch the newest sessions, at most `limit`, page by page. Raises FieldInvalidError."""
    check_count(limit, "limit")
    found: list[Session] = []
    token = ""
    while len(found) < limit:
        request = build(
            session_pb2.ListSessionsRequest,
            page_size=min(limit - len(found), _PAGE),
            page_token=token,
            model=model,
            open_only=open_only,
        )
        page = yield from unary(methods.LIST_SESSIONS, request, deadline)
        found += (session_of(message) for message in page.sessions)
        token = page.next_page_token
        if not token:
            break
    return found[:limit]
