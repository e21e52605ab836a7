"""The trace that a program is in goes along with its calls."""

import sys

import pytest
from opentelemetry import trace

from tests.unit.client.mill import Mill
from tidemill import AsyncClient, Client

TRACE, SPAN = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
HEADER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def a_span(**state: str) -> trace.NonRecordingSpan:
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    return trace.NonRecordingSpan(
        trace.SpanContext(TRACE, SPAN, is_remote=False, trace_flags=flags, trace_state=trace.TraceState(state.items()))
    )


def test_a_call_within_a_span_names_it(client: Client, mill: Mill) -> None:
    with trace.use_span(a_span(rojo="1")):
        client.list_models()
    assert mill.metadata[-1]["traceparent"] == HEADER
    assert mill.metadata[-1]["tracestate"] == "rojo=1"


async def test_a_call_within_a_span_names_it_with_asyncio_too(async_client: AsyncClient, mill: Mill) -> None:
    with trace.use_span(a_span()):
        await async_client.list_models()
    assert mill.metadata[-1]["traceparent"] == HEADER
    assert "tracestate" not in mill.metadata[-1]


def test_a_call_outside_of_spans_names_none(client: Client, mill: Mill) -> None:
    client.list_models()
    assert "traceparent" not in mill.metadata[-1]


def test_a_program_without_opentelemetry_names_none(
    client: Client, mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    client.list_models()
    assert "traceparent" not in mill.metadata[-1]
