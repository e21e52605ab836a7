"""How channels are set up, sync and aio alike."""

import sys
from pathlib import Path
from typing import TypeAlias

import grpc

from tidemill.connection import Connection
from tidemill.errors import ConfigError

MIB = 1024 * 1024

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    # A dead peer is noticed within 30 s, and what lies between keeps a silent stream open.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The server decides what is too large; a batch of 256 answers must fit.
    ("grpc.max_receive_message_length", 64 * MIB),
    ("grpc.max_send_message_length", 64 * MIB),
    # A server that has just come back is found at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_PLAIN_OPTIONS = (
    *_OPTIONS,
    ("grpc.min_reconnect_backoff_ms", 1_000),  # what a connection may take, whatever gRPC calls it
    # Plaintext is for loopback: no proxy stands between.
    ("grpc.enable_http_proxy", 0),
)
_TLS_OPTIONS = (*_OPTIONS, ("grpc.min_reconnect_backoff_ms", 10_000))


def open_channel(connection: Connection) -> grpc.Channel:
    """A channel for blocking calls. Raises ConfigError when the CA file cannot be read any more."""
    if connection.is_tls:
        return grpc.secure_channel(connection.target, _credentials(connection), options=_TLS_OPTIONS)
    return grpc.insecure_channel(connection.target, options=_PLAIN_OPTIONS)


def open_aio_channel(connection: Connection) -> grpc.aio.Channel:
    """A channel for asyncio. Raises ConfigError when the CA file cannot be read any more."""
    if connection.is_tls:
        return grpc.aio.secure_channel(connection.target, _credentials(connection), options=_TLS_OPTIONS)
    return grpc.aio.insecure_channel(connection.target, options=_PLAIN_OPTIONS)


def _credentials(connection: Connection) -> grpc.ChannelCredentials:
    if not connection.ca_file:
        return grpc.ssl_channel_credentials()
    try:
        return grpc.ssl_channel_credentials(Path(connection.ca_file).read_bytes())
    except OSError as error:
        raise ConfigError(f"The CA file {connection.ca_file} cannot be read: {error.strerror}.") from error


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
