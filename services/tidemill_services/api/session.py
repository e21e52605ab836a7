"""The Session service: read the message, ask the domain, write the message."""

from typing import Any

import grpc

from tidemill.v1 import session_pb2, session_pb2_grpc
from tidemill_models.manifest import Manifest
from tidemill_services.api import convert
from tidemill_services.api.idempotency import once, request_key
from tidemill_services.api.interceptors import current_caller
from tidemill_services.api.session_messages import check_served, session_message
from tidemill_services.catalogue import resolve_model
from tidemill_services.store import sessions
from tidemill_services.store.database import Database, Transaction

Context = grpc.aio.ServicerContext[Any, Any]


class SessionService(session_pb2_grpc.SessionServiceServicer):
    """Serves `tidemill.v1.SessionService`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def StartSession(  # noqa: N802 -- the contract's name
        self, request: session_pb2.StartSessionRequest, _context: Context
    ) -> session_pb2.StartSessionResponse:
        """Start a session and wake its model."""
        caller = current_caller()
        name = convert.model_id(request.model)
        check_served(request)

        def start(tx: Transaction) -> session_pb2.StartSessionResponse:
            model = resolve_model(tx, caller, name)
            session, already_active = sessions.start_session(
                tx,
                account_id=caller.account_id,
                key_id=caller.key_id,
                model=model.name,
                holder=request.holder or caller.key_id,
                price_microcredits_per_second=Manifest.from_json(model.manifest_json).prices.session_per_second,
                labels=request.labels,
            )
            return session_pb2.StartSessionResponse(
                session=session_message(session, tx.now_ms), already_active=already_active
            )

        key = request_key(caller, "StartSession", request, request.request_id)
        return await self._database.write(once, key, session_pb2.StartSessionResponse, start)

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

        key = request_key(caller, "StopSession", request, request.request_id)
        return await self._database.write(once, key, session_pb2.StopSessionResponse, stop)

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
