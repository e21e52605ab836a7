"""The pages of OpenAI's API: read the request, ask the domain, write the answer."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from tidemill_services.batch import BatchResult, answers_to, run_batch, stream_batch
from tidemill_services.domain.errors import NoSessionError, TidemillError
from tidemill_services.domain.generation import Usage
from tidemill_services.domain.session import bill
from tidemill_services.gateway.http_errors import error_body
from tidemill_services.gateway.json_body import read_object
from tidemill_services.gateway.openai_answers import (
    CHAT,
    STREAM_END,
    TEXT,
    Answer,
    Dialect,
    error_event,
    json_bytes,
    keep_alive,
    model_body,
    usage_of,
)
from tidemill_services.gateway.openai_requests import CompletionRequest, chat_request, checked_model, text_request
from tidemill_services.generation import Generations
from tidemill_services.generation_admission import Admission
from tidemill_services.generation_events import Delta, Event, Waiting
from tidemill_services.identity import Caller
from tidemill_services.store import models, sessions
from tidemill_services.store.database import Database, Transaction

ReadRequest = Callable[[Mapping[str, object], Headers], CompletionRequest]
NUM_FINGERPRINT_DIGITS = 12


def openai_routes(database: Database, generations: Generations) -> list[BaseRoute]:
    """What the OpenAI door serves; each page has its caller from the door."""
    pages = ModelPages(database)
    chats = CompletionPage(database, generations, CHAT, chat_request)
    texts = CompletionPage(database, generations, TEXT, text_request)
    return [
        Route("/v1/models", pages.list),
        Route("/v1/models/{model:path}", pages.get),
        Route("/v1/chat/completions", chats, methods=["POST"]),
        Route("/v1/completions", texts, methods=["POST"]),
    ]


class ModelPages:
    """What is registered."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, _request: Request) -> Response:
        """All models."""
        records = await self._database.read(models.list_models)
        return _json({"object": "list", "data": [model_body(record) for record in records]})

    async def get(self, request: Request) -> Response:
        """One model. Raises ModelNotFoundError."""
        name = checked_model(request.path_params["model"])
        return _json(model_body(await self._database.read(models.get_model, name)))


class CompletionPage:
    """Answers prompts or chats, whole or streamed."""

    def __init__(
        self, database: Database, generations: Generations, dialect: Dialect, read_request: ReadRequest
    ) -> None:
        self._database = database
        self._generations = generations
        self._dialect = dialect
        self._read_request = read_request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; when its caller goes away, so does all that it asked for."""
        request = Request(scope, receive)
        asked = self._read_request(await read_object(request), request.headers)
        await _while_connected(receive, self._answer(request.state.caller, asked, send))

    async def _answer(self, caller: Caller, asked: CompletionRequest, send: Send) -> None:
        try:
            await self._answer_paid(caller, asked, send)
        except NoSessionError:
            if not caller.auto_session:
                raise
            # What is wrong with the prompts is said first: nobody shall open a session only to hear that.
            for path, prompt in asked.prompts:
                await self._generations.check(
                    caller, model=asked.model, options=asked.options, prompt=prompt, field=path
                )
            await self._generations.open_session(caller, model=asked.model, wait=asked.options.wait)
            await self._answer_paid(caller, asked, send)

    async def _answer_paid(self, caller: Caller, asked: CompletionRequest, send: Send) -> None:
        async with self._generations.admit(caller, model=asked.model, session="", options=asked.options) as admission:
            if asked.stream:
                await self._stream(asked, admission, send)
            else:
                await self._send_whole(asked, admission, send)

    async def _send_whole(self, asked: CompletionRequest, admission: Admission, send: Send) -> None:
        results: dict[int, BatchResult] = {}
        admission.check_whole(len(asked.prompts) * asked.num_choices, field=self._dialect.logprobs_field)
        inputs = answers_to(admission, asked.prompts, asked.num_choices)
        async with aclosing(run_batch(self._generations, inputs, deadline=None)) as events:
            async for event in events:
                if isinstance(event, BatchResult):
                    if event.end.error is not None:
                        raise event.end.error
                    results[event.index] = event
        answer, headers = await self._begin(asked, admission)
        ordered = [results[index] for index in range(len(inputs))]
        usage = usage_of([result.end.usage for result in ordered], asked.num_choices)
        body = json_bytes(answer.whole(ordered, usage))
        if not admission.session_id:
            costs = sum(result.end.usage.cost_microcredits for result in ordered)
            headers["x-tidemill-cost-microcredits"] = str(costs)
        await _start(send, {**headers, "content-type": "application/json", "content-length": str(len(body))})
        await _send(send, body, more=False)

    async def _stream(self, asked: CompletionRequest, admission: Admission, send: Send) -> None:
        """Send the answer as it is made. What is refused before there was anything to send has its own status."""
        answer, headers = await self._begin(asked, admission)
        has_begun = False
        last = STREAM_END
        try:
            async with aclosing(self._frames(asked, admission, answer)) as frames:
                async for frame in frames:
                    if not has_begun:
                        await _start(
                            send, {**headers, "content-type": "text/event-stream", "cache-control": "no-store"}
                        )
                        has_begun = True
                    await _send(send, frame)
        except TidemillError as error:
            if not has_begun:
                raise
            last = error_event(error_body(error))
        await _send(send, last, more=False)

    async def _frames(self, asked: CompletionRequest, admission: Admission, answer: Answer) -> AsyncGenerator[bytes]:
        inputs = answers_to(admission, asked.prompts, asked.num_choices)
        usages = [Usage()] * len(inputs)
        opened: set[int] = set()
        async with aclosing(stream_batch(self._generations, inputs, deadline=None)) as events:
            async for index, event in events:
                opening = b"" if index in opened or isinstance(event, Waiting) else answer.opening(index)
                if frame := _frame(answer, index, event):
                    yield opening + frame
                    if not isinstance(event, Waiting):
                        opened.add(index)
                if not isinstance(event, Waiting | Delta):
                    usages[index] = event.usage
        if frame := answer.usage(usage_of(usages, asked.num_choices)):
            yield frame

    async def _begin(self, asked: CompletionRequest, admission: Admission) -> tuple[Answer, dict[str, str]]:
        """An answer without its content, and the headers that say which session pays and what it has cost so far."""

        def headers_of(tx: Transaction) -> tuple[dict[str, str], int]:
            if not admission.session_id:
                return {}, tx.now_ms
            session = sessions.get_session(tx, admission.account_id, admission.session_id)
            cost_microcredits = bill(session, tx.now_ms).cost_microcredits
            named = {
                "x-tidemill-session": f"sessions/{session.session_id}",
                "x-tidemill-cost-microcredits": str(cost_microcredits),
            }
            return named, tx.now_ms

        headers, now_ms = await self._database.read(headers_of)
        answer = Answer(
            self._dialect,
            asked,
            created=now_ms // 1000,
            model=admission.served.name,
            fingerprint=f"fp_{admission.served.digest[:NUM_FINGERPRINT_DIGITS]}",
        )
        return answer, headers


def _frame(answer: Answer, index: int, event: Event) -> bytes:
    """What an event is in the stream; nothing for tokens without text. Raises the error that ended a generation."""
    if isinstance(event, Waiting):
        return keep_alive(event)
    if isinstance(event, Delta):
        return answer.delta(index, event.text, event.logprobs) if event.text or event.logprobs else b""
    if event.error is not None:
        raise event.error
    return answer.ending(index, event.finish_reason)


async def _while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, unless the caller goes away before its end. Raises ClientDisconnect."""

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working = asyncio.create_task(work, name="http-answer")
    gone = asyncio.create_task(disconnected(), name="http-disconnect")
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        working.cancel()
        await asyncio.wait({working, gone})
    if working.cancelled():
        raise ClientDisconnect
    error = working.exception()
    if error is not None:
        del working, gone  # which keep the error, whose frames would keep them
        raise error


def _json(value: object) -> Response:
    return Response(json_bytes(value), media_type="application/json")


async def _start(send: Send, headers: Mapping[str, str]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
