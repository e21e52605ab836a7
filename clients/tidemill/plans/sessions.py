"""Sessions: start, stop, look."""

from tidemill import methods
from tidemill.results import Session, session_of
from tidemill.steps import Deadline, Plan, build, check_count, request_id, unary
from tidemill.v1 import session_pb2

_PAGE = 1_000


def start(model: str, *, holder: str, deadline: Deadline) -> Plan[Session]:
    """Start a session, or join the open one as `holder` (empty: the key itself)."""
    request = build(
        session_pb2.StartSessionRequest,
        model=model,
        request_id=request_id(),
        holder=holder,
        liveness=session_pb2.Session.LIVENESS_NONE,
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
