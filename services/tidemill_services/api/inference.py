"""The Inference service: read the message, ask the domain, write the message."""

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from typing import Any

import grpc

from tidemill.v1 import inference_pb2, inference_pb2_grpc
from tidemill_services.api import convert, generation_messages
from tidemill_services.api.interceptors import current_caller
from tidemill_services.batch import BatchInput, run_batch
from tidemill_services.domain.errors import FieldInvalidError, NoSessionError
from tidemill_services.domain.generation import MAX_BATCH_INPUTS, seed_of
from tidemill_services.generation import Admission, Generations

Context = grpc.aio.ServicerContext[Any, Any]


class InferenceService(inference_pb2_grpc.InferenceServiceServicer):
    """Serves `tidemill.v1.InferenceService`."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations

    async def Generate(  # noqa: N802 -- the contract's name
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """Run one generation."""
        prompt = convert.prompt(request.input)
        try:
            async with self._admit(request) as admission:
                admitted = await admission.take(prompt, field="input")
                sequence_number = 0
                async with aclosing(self._generations.stream(admitted, deadline=_deadline(context))) as events:
                    async for event in events:
                        sequence_number += 1
                        yield generation_messages.generate_response(sequence_number, event)
        except NoSessionError:
            # What is wrong with the prompt is said first: nobody shall open a session only to hear that.
            model, options = convert.model_id(request.model), convert.options(request.options)
            await self._generations.check(current_caller(), model=model, options=options, prompt=prompt, field="input")
            raise

    async def GenerateBatch(  # noqa: N802 -- the contract's name
        self, request: inference_pb2.GenerateBatchRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateBatchResponse]:
        """Run several generations with the same settings."""
        if not 1 <= len(request.inputs) <= MAX_BATCH_INPUTS:
            raise FieldInvalidError(
                f"{len(request.inputs)} inputs were sent; it may be 1 to {MAX_BATCH_INPUTS}.", field="inputs"
            )
        async with self._admit(request) as admission:
            inputs = [_batch_input(admission, request, index) for index in range(len(request.inputs))]
            sequence_number = 0
            async with aclosing(run_batch(self._generations, inputs, deadline=_deadline(context))) as events:
                async for event in events:
                    sequence_number += 1
                    yield generation_messages.generate_batch_response(sequence_number, event)

    def _admit(
        self, request: inference_pb2.GenerateRequest | inference_pb2.GenerateBatchRequest
    ) -> AbstractAsyncContextManager[Admission]:
        convert.check_request_id(request.request_id)
        return self._generations.admit(
            current_caller(),
            model=convert.model_id(request.model),
            session=convert.session_id(request.session, "session") if request.session else "",
            options=convert.options(request.options),
        )


def _batch_input(admission: Admission, request: inference_pb2.GenerateBatchRequest, index: int) -> BatchInput:
    """One input of a batch; a seed is used with the input's index added, within 64 bits."""
    options = replace(admission.options, seed=seed_of(admission.options.seed, index))
    return BatchInput(replace(admission, options=options), convert.prompt(request.inputs[index]), f"inputs[{index}]")


def _deadline(context: Context) -> float | None:
    remaining: float | None = context.time_remaining()  # None without a deadline, whatever its stub says
    return None if remaining is None else time.monotonic() + remaining
