"""The Inference service: read the message, ask the domain, write the message."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from tidemill.v1 import inference_pb2, inference_pb2_grpc
from tidemill_services.api import convert, generation_messages
from tidemill_services.api.idempotency import request_key
from tidemill_services.api.interceptors import current_caller
from tidemill_services.batch import answers_to, run_batch
from tidemill_services.domain.errors import FieldInvalidError, NoSessionError
from tidemill_services.domain.generation import MAX_BATCH_INPUTS
from tidemill_services.generation import Generations
from tidemill_services.generation_admission import Admission
from tidemill_services.generation_events import Event, Waiting
from tidemill_services.identity import Caller
from tidemill_services.resumable import ResumableGenerations, Start
from tidemill_services.session_streams import RunningStream
from tidemill_services.store.requests import RequestKey
from tidemill_services.usage_limits import UsageGuard
from tidemill_services.whole_answer import whole_answer

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a call asks for that may run already."""

    key: RequestKey | None  # None: it ends with its call
    run: Start
    resume_after: int
    joins_end: bool


class InferenceService(inference_pb2_grpc.InferenceServiceServicer):
    """Serves `tidemill.v1.InferenceService`."""

    def __init__(self, generations: Generations, resumable: ResumableGenerations, guard: UsageGuard) -> None:
        self._generations = generations
        self._resumable = resumable
        self._guard = guard

    async def Generate(  # noqa: N802 -- the contract's name
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """Run one generation, or attach to it."""
        asked = await self._take(request, context, is_whole=False)
        if asked.key is not None:
            with await self._resumable.attach(asked.key, asked.resume_after, asked.run) as recording:
                async with aclosing(recording.read(asked.resume_after, joins_end=asked.joins_end)) as numbered:
                    async for number, event in numbered:
                        yield generation_messages.generate_response(number, event)
            return
        number = 0
        async with aclosing(asked.run(RunningStream())) as events:
            async for event in events:
                number += not isinstance(event, Waiting)  # a sign of life has the number of the event before it
                yield generation_messages.generate_response(number, event)

    async def Complete(  # noqa: N802 -- the contract's name
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> inference_pb2.CompleteResponse:
        """Run one generation, or attach to it, and answer with all that it says."""
        asked = await self._take(request, context, is_whole=True)
        if asked.resume_after:
            raise FieldInvalidError("resume_after must be 0: a whole answer begins at its start.", field="resume_after")
        if asked.key is not None:
            with await self._resumable.attach(asked.key, 0, asked.run) as recording:
                return generation_messages.complete_response(await recording.whole())
        async with aclosing(asked.run(RunningStream())) as events:
            return generation_messages.complete_response(await whole_answer(events))

    async def CancelGeneration(  # noqa: N802 -- the contract's name
        self, request: inference_pb2.CancelGenerationRequest, _context: Context
    ) -> inference_pb2.CancelGenerationResponse:
        """End a generation that has a request id."""
        if not request.request_id:
            raise FieldInvalidError("request_id must name the generation.", field="request_id")
        convert.check_request_id(request.request_id)
        was_running = self._resumable.cancel(current_caller().account_id, request.request_id)
        return inference_pb2.CancelGenerationResponse(already_ended=not was_running)

    async def GenerateBatch(  # noqa: N802 -- the contract's name
        self, request: inference_pb2.GenerateBatchRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateBatchResponse]:
        """Run several generations with the same settings."""
        if not 1 <= len(request.inputs) <= MAX_BATCH_INPUTS:
            raise FieldInvalidError(
                f"{len(request.inputs)} inputs were sent; it may be 1 to {MAX_BATCH_INPUTS}.", field="inputs"
            )
        num_answers = _num_answers(request)
        convert.check_request_id(request.request_id)
        async with self._admit(current_caller(), request) as admission:
            admission.check_whole()
            prompts = [(f"inputs[{index}]", convert.prompt(each)) for index, each in enumerate(request.inputs)]
            inputs = answers_to(admission, prompts, num_answers)
            sequence_number = 0
            async with aclosing(run_batch(self._generations, inputs, deadline=_deadline(context))) as events:
                async for event in events:
                    sequence_number += 1
                    yield generation_messages.generate_batch_response(sequence_number, event)

    async def _take(self, request: inference_pb2.GenerateRequest, context: Context, *, is_whole: bool) -> _Asked:
        """Count the request, and read what does not belong to the generation itself."""
        caller = current_caller()
        if not self._resumable.is_here(caller.account_id, request.request_id):
            await self._guard.count_request(caller)
        convert.check_request_id(request.request_id)
        resume_after, joins_end = _take_resume_after(request), _take_joins_end(request)
        key = request_key(caller, "Generate", request, request.request_id)  # whichever method asks
        return _Asked(key, partial(self._run, caller, request, _deadline(context), is_whole), resume_after, joins_end)

    async def _run(
        self,
        caller: Caller,
        request: inference_pb2.GenerateRequest,
        deadline: float | None,
        is_whole: bool,
        running: RunningStream,
    ) -> AsyncGenerator[Event]:
        prompt = convert.prompt(request.input)
        try:
            async with self._admit(caller, request) as admission:
                if is_whole:
                    admission.check_whole()
                admitted = await admission.take(prompt, field="input")
                stream = self._generations.stream(admitted, deadline=deadline, running=running)
                async with aclosing(stream) as events:
                    async for event in events:
                        yield event
        except NoSessionError:
            # What is wrong with the prompt is said first: nobody shall open a session only to hear that.
            model, options = convert.model_id(request.model), convert.options(request.options)
            await self._generations.check(caller, model=model, options=options, prompt=prompt, field="input")
            raise

    def _admit(
        self, caller: Caller, request: inference_pb2.GenerateRequest | inference_pb2.GenerateBatchRequest
    ) -> AbstractAsyncContextManager[Admission]:
        return self._generations.admit(
            caller,
            model=convert.model_id(request.model),
            session=convert.session_id(request.session, "session") if request.session else "",
            options=convert.options(request.options),
        )


def _take_resume_after(request: inference_pb2.GenerateRequest) -> int:
    """The number to go on from; it leaves the request, since it may differ between calls with one request_id."""
    resume_after = request.resume_after
    if resume_after < 0:
        raise FieldInvalidError(f"resume_after is {resume_after}; it may not be negative.", field="resume_after")
    if resume_after and not request.request_id:
        raise FieldInvalidError("resume_after needs the request_id of the generation.", field="resume_after")
    request.ClearField("resume_after")
    return resume_after


def _take_joins_end(request: inference_pb2.GenerateRequest) -> bool:
    """Whether the last text may come with the end; it leaves the request for the same reason."""
    joins_end = request.joins_end
    request.ClearField("joins_end")
    return joins_end


def _num_answers(request: inference_pb2.GenerateBatchRequest) -> int:
    """How many answers each input gets. Raises FieldInvalidError."""
    num_answers = request.num_answers or 1
    if num_answers < 0 or num_answers * len(request.inputs) > MAX_BATCH_INPUTS:
        raise FieldInvalidError(
            f"{num_answers} answers to each of {len(request.inputs)} inputs were asked for; there may be "
            f"{MAX_BATCH_INPUTS} in all.",
            field="num_answers",
        )
    return num_answers


def _deadline(context: Context) -> float | None:
    remaining: float | None = context.time_remaining()  # None without a deadline, whatever its stub says
    return None if remaining is None else time.monotonic() + remaining
