"""The Session service: read the message, ask the domain, write the message."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from tidemill.v1 import session_pb2, session_pb2_grpc
from tidemill_services.api import convert
from tidemill_services.api.idempotency import once, request_key
from tidemill_services.api.interceptors import current_caller
from tidemill_services.api.session_messages import (
    given_limits,
    limits_change,
    liveness_of,
    meter_message,
    session_message,
)
from tidemill_services.catalogue import resolve_model
from tidemill_services.domain.errors import DrainingError, SessionEndedError
from tidemill_services.domain.session import Session, SessionState, check_holder
from tidemill_services.session_signs import SessionSigns
from tidemill_services.store import prices, session_funds, sessions
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.topics import session_topic
from tidemill_telemetry.call_record import current_call

Context = grpc.aio.ServicerContext[Any, Any]

HEARTBEAT_SECONDS = 20
READING_SECONDS = 1.0  # between two readings of the live meter


class SessionService(session_pb2_grpc.SessionServiceServicer):
    """Serves `tidemill.v1.SessionService`."""

    def __init__(
        self,
        database: Database,
        signs: SessionSigns,
        tell: Callable[[], Awaitable[None]],
        is_draining: Callable[[], bool],
    ) -> None:
        """`tell` tells the store what is known here of sessions' streams."""
        self._database = database
        self._signs = signs
        self._tell = tell
        self._is_draining = is_draining

    async def StartSession(  # noqa: N802 -- the contract's name
        self, request: session_pb2.StartSessionRequest, _context: Context
    ) -> session_pb2.StartSessionResponse:
        """Start a session and wake its model."""
        caller = current_caller()
        name = convert.model_id(request.model)
        liveness, limits = liveness_of(request), given_limits(request.limits)

        def start(tx: Transaction) -> session_pb2.StartSessionResponse:
            model = resolve_model(tx, caller, name)
            price = prices.price_of(tx, model.name, caller.account_id)
            session, already_active = sessions.start_session(
                tx,
                account_id=caller.account_id,
                key_id=caller.key_id,
                model=model.name,
                holder=request.holder or caller.key_id,
                price_microcredits_per_second=price.session_microcredits_per_second,
                price_revision=price.revision,
                limits=limits,
                liveness=liveness,
                labels=request.labels,
            )
            return session_pb2.StartSessionResponse(
                session=session_message(session, tx.now_ms), already_active=already_active
            )

        key = request_key(caller, "StartSession", request, request.request_id)
        started = await self._database.write(once, key, session_pb2.StartSessionResponse, start)
        _name_in_logs(started.session)
        return started

    async def StopSession(  # noqa: N802 -- the contract's name
        self, request: session_pb2.StopSessionRequest, _context: Context
    ) -> session_pb2.StopSessionResponse:
        """Let a holder leave, or end the session, and return its bill."""
        caller = current_caller()
        session_id = convert.session_id(request.name) if request.name else None
        name = "" if session_id else convert.model_id(request.model)

        def stop(tx: Transaction) -> session_pb2.StopSessionResponse:
            session, already_ended = sessions.stop_session(
                tx,
                account_id=caller.account_id,
                key_id=caller.key_id,
                session_id=session_id,
                model="" if session_id else resolve_model(tx, caller, name).name,
                holder=request.holder or caller.key_id,
                all_holders=request.all_holders,
            )
            return session_pb2.StopSessionResponse(
                session=session_message(session, tx.now_ms), already_ended=already_ended
            )

        await self._tell()  # so that the final bill lacks the waits that are known here
        key = request_key(caller, "StopSession", request, request.request_id)
        stopped = await self._database.write(once, key, session_pb2.StopSessionResponse, stop)
        _name_in_logs(stopped.session)
        return stopped

    async def GetSession(  # noqa: N802 -- the contract's name
        self, request: session_pb2.GetSessionRequest, _context: Context
    ) -> session_pb2.Session:
        """Return a session with its bill until now."""
        caller = current_caller()
        session_id = convert.session_id(request.name)

        def get(tx: Transaction) -> session_pb2.Session:
            return session_message(sessions.get_session(tx, caller.account_id, session_id), tx.now_ms)

        return await self._database.read(get)

    async def ListSessions(  # noqa: N802 -- the contract's name
        self, request: session_pb2.ListSessionsRequest, _context: Context
    ) -> session_pb2.ListSessionsResponse:
        """List the account's sessions."""
        caller = current_caller()
        model = convert.model_id(request.model)

        def list_page(tx: Transaction) -> session_pb2.ListSessionsResponse:
            page = sessions.list_sessions(
                tx,
                caller.account_id,
                page_size=request.page_size,
                page_token=request.page_token,
                model=model,
                open_only=request.open_only,
            )
            return session_pb2.ListSessionsResponse(
                sessions=[session_message(session, tx.now_ms) for session in page.sessions],
                next_page_token=page.next_page_token,
            )

        return await self._database.read(list_page)

    async def UpdateSession(  # noqa: N802 -- the contract's name
        self, request: session_pb2.UpdateSessionRequest, _context: Context
    ) -> session_pb2.Session:
        """Change the limits and labels of an open session."""
        caller = current_caller()
        session_id = convert.session_id(request.session.name, "session.name")
        limits = limits_change(request)
        labels = request.session.labels if "labels" in request.update_mask.paths else None

        def change(tx: Transaction) -> session_pb2.Session:
            session = sessions.update_session(tx, caller.account_id, session_id, limits=limits, labels=labels)
            return session_message(session, tx.now_ms)

        key = request_key(caller, "UpdateSession", request, request.request_id)
        return await self._database.write(once, key, session_pb2.Session, change)

    async def WatchSession(  # noqa: N802 -- the contract's name
        self, request: session_pb2.WatchSessionRequest, _context: Context
    ) -> AsyncIterator[session_pb2.SessionMeter]:
        """Stream the live meter until the session has ended; meanwhile its reader is alive."""
        caller = current_caller()
        session_id = convert.session_id(request.name)
        holder = request.holder or caller.key_id
        check_holder(holder)
        await self._database.read(sessions.get_session, caller.account_id, session_id)

        def read_meter(tx: Transaction) -> tuple[Session, int]:
            session = sessions.get_session(tx, caller.account_id, session_id)
            return session_funds.with_all_credits(tx, session), tx.now_ms

        sequence_number = 0
        changes = self._database.changes(session_topic(session_id), poll_seconds=READING_SECONDS)
        with self._signs.watching(session_id, holder):
            async with aclosing(changes):
                async for _ in changes:
                    session, now_ms = await self._database.read(read_meter)
                    if self._is_draining():
                        raise DrainingError(retry_after_seconds=1)
                    sequence_number += 1
                    yield meter_message(session, now_ms, sequence_number)
                    if session.state is SessionState.ENDED:
                        return

    async def HeartbeatSession(  # noqa: N802 -- the contract's name
        self, request: session_pb2.HeartbeatSessionRequest, _context: Context
    ) -> session_pb2.HeartbeatSessionResponse:
        """Take a holder's sign of life."""
        caller = current_caller()
        session_id = convert.session_id(request.name)
        holder = request.holder or caller.key_id
        check_holder(holder)
        session = await self._database.read(sessions.get_session, caller.account_id, session_id)
        if holder not in session.holders:
            raise SessionEndedError(
                f"{holder} does not hold the session {session_id}, or not any more: start a session again."
            )
        self._signs.hear(session_id, holder)
        return session_pb2.HeartbeatSessionResponse(next_heartbeat=Duration(seconds=HEARTBEAT_SECONDS))


def _name_in_logs(session: session_pb2.Session) -> None:
    """The call's line and span say which session it began or ended."""
    call = current_call()
    if call is not None:
        call.session, call.model = convert.session_id(session.name), convert.model_id(session.model)
