"""Generations with a request id, through the real wire: attached again, at once, later, by others."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.integration.api.conftest import MODEL, Wire, text_of, wait_until, wire_to
from tests.integration.api.test_refusals import refusal_of
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import inference_pb2, usage_pb2

LENGTH = inference_pb2.FINISH_REASON_LENGTH
CANCELLED = inference_pb2.FINISH_REASON_CANCELLED


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


def begin(wire: Wire, name: str, num_messages: int, **fields: object) -> list[inference_pb2.GenerateResponse]:
    """The first numbered messages of a stream that is then cut."""
    stream = wire.generate(request_id=name, **fields)
    seen = []
    for message in stream:
        if not message.HasField("keep_alive"):
            seen.append(message)
            if len(seen) == num_messages:
                break
    stream.cancel()  # type: ignore[attr-defined]
    return seen


def numbered(stream: Iterator[inference_pb2.GenerateResponse]) -> list[inference_pb2.GenerateResponse]:
    return [message for message in stream if not message.HasField("keep_alive")]


def cancel(wire: Wire, name: str) -> bool:
    request = inference_pb2.CancelGenerationRequest(request_id=name)
    return wire.inference.CancelGeneration(request, metadata=wire.metadata).already_ended


def test_a_cut_stream_goes_on_from_the_next_message(slow_wire: Wire, name: str) -> None:
    slow_wire.start()
    whole = text_of(list(slow_wire.generate(max_tokens=200)))
    seen = begin(slow_wire, name, 20, max_tokens=200)
    rest = numbered(slow_wire.generate(max_tokens=200, request_id=name, resume_after=seen[-1].sequence_number))
    assert [message.sequence_number for message in seen + rest] == list(range(1, len(seen + rest) + 1))
    assert text_of(seen + rest) == whole
    assert rest[-1].end.finish_reason == LENGTH
    assert rest[-1].end.usage.completion_tokens == 200
    assert sum(message.delta.num_tokens for message in seen + rest) == 200
