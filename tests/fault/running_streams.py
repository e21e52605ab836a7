"""A stream that is read in a thread of its own, while the test does something to the server."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from tests.fault.long_answers import LONG_LLAMA
from tests.integration.api.conftest import Wire
from tidemill.v1 import inference_pb2


@dataclass
class RunningStream:
    """What has come of it until now."""

    call: Iterator[inference_pb2.GenerateResponse]
    num_tokens: int = 0
    end: inference_pb2.GenerationEnd | None = None
    error: grpc.RpcError | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self.end is not None or self.error is not None

    def read(self) -> None:
        """Read to its end."""
        try:
            for response in self.call:
                self.num_tokens += response.delta.num_tokens
                if response.HasField("end"):
                    self.end = response.end
        except grpc.RpcError as error:
            self.error = error

    def wait_for_more(self, seconds: float = 60.0) -> None:
        """Wait for text that is not there yet; fail when none comes."""
        before, end = self.num_tokens, time.monotonic() + seconds
        while self.num_tokens == before:
            assert not self.is_over, f"the stream ended: {self.end or self.error}"
            assert time.monotonic() < end, f"no text came for {seconds:g} s"
            time.sleep(0.02)


@contextmanager
def running_stream(wire: Wire, model: str = LONG_LLAMA, max_tokens: int = 50_000) -> Iterator[RunningStream]:
    """A stream whose first text has come; cancelled at the end, if it still runs."""
    request = inference_pb2.GenerateRequest(
        model=model,
        input=inference_pb2.Input(prompt="tell me of the tide"),
        options=inference_pb2.GenerationOptions(max_tokens=max_tokens, sampling=inference_pb2.Sampling(temperature=0)),
    )
    call = wire.inference.Generate(request, metadata=wire.metadata, timeout=600)
    stream = RunningStream(call)
    reader = threading.Thread(target=stream.read, name="stream-reader", daemon=True)
    reader.start()
    try:
        stream.wait_for_more()
        yield stream
    finally:
        call.cancel()
        reader.join(60)
