"""The Model service: read the message, ask the domain, write the message."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc

from tidemill.v1 import model_pb2, model_pb2_grpc
from tidemill_services.api import convert
from tidemill_services.api.idempotency import once, request_key
from tidemill_services.api.interceptors import current_caller
from tidemill_services.api.model_messages import model_message
from tidemill_services.catalogue import resolve_model
from tidemill_services.domain.audit import changes_between
from tidemill_services.domain.errors import DrainingError, FieldInvalidError, RoleRequiredError
from tidemill_services.domain.session import EndReason
from tidemill_services.store import audit, model_views, models, prices, sessions
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.topics import model_topic

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1_000
LOOK_AGAIN_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 15.0


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """Serves `tidemill.v1.ModelService`."""

    def __init__(self, database: Database, is_draining: Callable[[], bool]) -> None:
        self._database = database
        self._is_draining = is_draining

    async def ListModels(  # noqa: N802 -- the contract's name
        self, request: model_pb2.ListModelsRequest, _context: Context
    ) -> model_pb2.ListModelsResponse:
        """List the registered models by name."""
        if not 0 <= request.page_size <= MAX_PAGE_SIZE:
            raise FieldInvalidError(
                f"page_size is {request.page_size}; it may be 0 to {MAX_PAGE_SIZE}.", field="page_size"
            )
        size = request.page_size or DEFAULT_PAGE_SIZE
        account_id = current_caller().account_id
        views, price_list = await self._database.read(
            lambda tx: (model_views.list_model_views(tx), prices.current_prices(tx, account_id))
        )
        rest = [view for view in views if view.name > request.page_token]
        return model_pb2.ListModelsResponse(
            models=[model_message(view, price_list[view.name]) for view in rest[:size]],
            next_page_token=rest[size - 1].name if len(rest) > size else "",
        )

    async def GetModel(  # noqa: N802 -- the contract's name
        self, request: model_pb2.GetModelRequest, _context: Context
    ) -> model_pb2.Model:
        """Return a model."""
        caller, name = current_caller(), convert.model_id(request.name, "name")

        def get(tx: Transaction) -> model_pb2.Model:
            return _model_now(tx, resolve_model(tx, caller, name, "name").name, caller.account_id)

        return await self._database.read(get)

    async def StartModel(  # noqa: N802 -- the contract's name
        self, request: model_pb2.StartModelRequest, _context: Context
    ) -> model_pb2.Model:
        """Wake a model."""
        caller, name = current_caller(), convert.model_id(request.name, "name")

        def start(tx: Transaction) -> model_pb2.Model:
            model = resolve_model(tx, caller, name, "name").name
            models.want_model(tx, model)
            return _model_now(tx, model, caller.account_id)

        key = request_key(caller, "StartModel", request, request.request_id)
        return await self._database.write(once, key, model_pb2.Model, start)

    async def StopModel(  # noqa: N802 -- the contract's name
        self, request: model_pb2.StopModelRequest, _context: Context
    ) -> model_pb2.Model:
        """Put a model to rest."""
        caller, name = current_caller(), convert.model_id(request.name, "name")
        if request.force and not caller.is_admin:
            raise RoleRequiredError

        def stop(tx: Transaction) -> model_pb2.Model:
            model = resolve_model(tx, caller, name, "name").name
            if request.force:
                sessions.stop_sessions_of_model(tx, model, EndReason.ADMIN)
            models.stop_model(tx, model, force=request.force)
            if request.force:
                audit.record(
                    tx,
                    actor=caller.key_name,
                    action="StopModel",
                    account_id="",
                    resource=f"models/{model}",
                    changes=changes_between({}, {"force": True}),
                )
            return _model_now(tx, model, caller.account_id)

        key = request_key(caller, "StopModel", request, request.request_id)
        return await self._database.write(once, key, model_pb2.Model, stop)

    async def WatchModel(  # noqa: N802 -- the contract's name
        self, request: model_pb2.WatchModelRequest, _context: Context
    ) -> AsyncIterator[model_pb2.WatchModelResponse]:
        """Stream the model now, at each change, and as a sign of life."""
        asked = convert.model_id(request.name, "name")
        caller = current_caller()
        name = (await self._database.read(resolve_model, caller, asked, "name")).name
        sequence_number = 0
        last: model_pb2.Model | None = None
        sent_at = 0.0
        async with aclosing(self._database.changes(model_topic(name), poll_seconds=LOOK_AGAIN_SECONDS)) as changes:
            async for _ in changes:
                message = await self._database.read(_model_now, name, caller.account_id)
                if self._is_draining():
                    raise DrainingError(retry_after_seconds=1)
                if message == last and time.monotonic() - sent_at < KEEP_ALIVE_SECONDS:
                    continue
                last, sent_at = message, time.monotonic()
                sequence_number += 1
                yield model_pb2.WatchModelResponse(sequence_number=sequence_number, model=message)


def _model_now(tx: Transaction, name: str, account_id: str) -> model_pb2.Model:
    return model_message(model_views.get_model_view(tx, name), prices.price_of(tx, name, account_id))
