"""How channels are set up, sync and aio alike."""

import sys
from typing import TypeAlias

from tidemill.connection import Connection

MIB = 1024 * 1024

FAREWELL_SECONDS = 0.5
"""How long closing a client waits for what it still has to tell the server."""

OPTIONS: list[tuple[str, int | str]] = [
    # A dead peer is noticed within 30 s, and what lies between keeps a silent stream open.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The server decides what is too large; a batch of 256 answers must fit.
    ("grpc.max_receive_message_length", 64 * MIB),
    ("grpc.max_send_message_length", 64 * MIB),
    # A server that has just come back is found at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Targets are loopback: no proxy stands between.
    ("grpc.enable_http_proxy", 0),
]


Metadata: TypeAlias = tuple[tuple[str, str], ...]


def metadata(connection: Connection) -> Metadata:
    """What every call carries: the key, and the trace that the program is in, if it keeps traces."""
    return (("authorization", f"Bearer {connection.api_key}"), *_trace_context())


def _trace_context() -> Metadata:
    """W3C trace context of OpenTelemetry's current span; a program that never imported OpenTelemetry has none."""
    trace = sys.modules.get("opentelemetry.trace")
    context = trace.get_current_span().get_span_context() if trace is not None else None
    if context is None or not context.is_valid:
        return ()
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    state = context.trace_state.to_header()
    return (("traceparent", parent), ("tracestate", state)) if state else (("traceparent", parent),)
