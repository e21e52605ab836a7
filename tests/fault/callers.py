"""Many callers at once, in one event loop: what each of them got, and how its call ended."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from tests.fault.long_answers import LONG_LLAMA
from tests.server_process import ServerProcess
from tidemill.v1 import errors_pb2, inference_pb2, inference_pb2_grpc, session_pb2, session_pb2_grpc

STATUS_KEY = "grpc-status-details-bin"


@dataclass(slots=True)
class Answer:
    """What one caller got."""

    num_tokens: int = 0  # as its messages counted them
    num_messages: int = 0
    end: inference_pb2.GenerationEnd | None = None
    code: str = ""  # of the call: "OK", or gRPC's word
    reason: str = ""  # of the error, in the call's status or in the stream's end
    has_retry_delay: bool = False
    text: list[str] = field(default_factory=list)

    @property
    def ending(self) -> str:
        """A word for how it ended, for counting."""
        if self.code != "OK":
            return f"{self.code} {self.reason}".strip()
        if self.end is None:
            return "no end"
        finish = inference_pb2.FinishReason.Name(self.end.finish_reason).removeprefix("FINISH_REASON_")
        return f"{finish} {self.reason}".strip()

    def take(self, response: inference_pb2.GenerateResponse) -> None:
        """Note a message."""
        self.num_messages += 1
        self.num_tokens += response.delta.num_tokens
        if response.delta.text:
            self.text.append(response.delta.text)
        if response.HasField("end"):
            self.end = response.end
            if response.end.HasField("error"):
                self.reason = errors_pb2.Error.Reason.Name(response.end.error.reason).removeprefix("REASON_")
                self.has_retry_delay = response.end.error.HasField("retry_delay")

    def fail(self, error: grpc.aio.AioRpcError) -> None:
        """Note how the call failed."""
        self.code = error.code().name
        for key, value in error.trailing_metadata() or ():
            if key == STATUS_KEY:
                self._read_details(status_pb2.Status.FromString(value))

    def _read_details(self, status: status_pb2.Status) -> None:
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                self.reason = info.reason
            self.has_retry_delay |= detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)


class Callers:
    """Calls over one connection, with a key."""

    def __init__(self, target: str, api_key: str, options: tuple[tuple[str, int], ...] = ()) -> None:
        self.channel = grpc.aio.insecure_channel(target, options=(("grpc.use_local_subchannel_pool", 1), *options))
        self.metadata = (("authorization", f"Bearer {api_key}"),)
        self.inference = inference_pb2_grpc.InferenceServiceStub(self.channel)
        self.sessions = session_pb2_grpc.SessionServiceStub(self.channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.channel.close()

    async def start(self, model: str = LONG_LLAMA) -> session_pb2.Session:
        """Open the key's session of a model."""
        response = await self.sessions.StartSession(
            session_pb2.StartSessionRequest(model=model), metadata=self.metadata, timeout=60
        )
        return response.session

    async def stop(self, model: str = LONG_LLAMA) -> session_pb2.Session:
        """End it."""
        request = session_pb2.StopSessionRequest(model=model, all_holders=True)
        return (await self.sessions.StopSession(request, metadata=self.metadata, timeout=60)).session

    def call(
        self, max_tokens: int, *, model: str = LONG_LLAMA, seconds: float | None = 300
    ) -> "grpc.aio.UnaryStreamCall[inference_pb2.GenerateRequest, inference_pb2.GenerateResponse]":
        """Begin a generation."""
        request = inference_pb2.GenerateRequest(
            model=model,
            input=inference_pb2.Input(prompt="tell me of the tide"),
            options=inference_pb2.GenerationOptions(
                max_tokens=max_tokens,
                sampling=inference_pb2.Sampling(temperature=0),
            ),
        )
        return self.inference.Generate(request, metadata=self.metadata, timeout=seconds)

    async def generate(self, max_tokens: int, *, model: str = LONG_LLAMA, seconds: float | None = 300) -> Answer:
        """Run a generation to its end, whatever that is."""
        return await read(self.call(max_tokens, model=model, seconds=seconds))


async def read(
    call: "grpc.aio.UnaryStreamCall[inference_pb2.GenerateRequest, inference_pb2.GenerateResponse]",
    answer: Answer | None = None,
) -> Answer:
    """Read a call to its end."""
    answer = Answer() if answer is None else answer
    try:
        async for response in call:
            answer.take(response)
        answer.code = "OK"
    except grpc.aio.AioRpcError as error:
        answer.fail(error)
    return answer


async def first_text(
    call: "grpc.aio.UnaryStreamCall[inference_pb2.GenerateRequest, inference_pb2.GenerateResponse]",
) -> Answer:
    """Read until the first text."""
    answer = Answer()
    async for response in call:
        answer.take(response)
        if answer.num_tokens:
            return answer
    raise AssertionError(f"the stream ended before its first text: {answer.ending}")


@asynccontextmanager
async def callers_of(server: ServerProcess, options: tuple[tuple[str, int], ...] = ()) -> AsyncIterator[Callers]:
    """Callers with the key of whoever runs the server, and an open session of the long model."""
    async with Callers(server.grpc, server.api_key, options) as callers:
        await callers.start()
        yield callers
