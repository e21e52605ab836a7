"""Stands in for an OpenTelemetry collector: takes what comes over OTLP, by HTTP or gRPC, and keeps its spans."""

import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass
class CollectedSpan:
    """A span as a person reads it."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, object]
    events: list[str]
    is_error: bool
    state: str


@dataclass
class Collector:
    """What came, in its order."""

    endpoint: str
    spans: list[CollectedSpan] = field(default_factory=list)

    def take(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        """Keep the spans of one request."""
        for resource in request.resource_spans:
            service = _values(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [_read(str(service), span) for span in scope.spans]


@contextmanager
def http_collector() -> Iterator[Collector]:
    """A collector that takes OTLP as protobuf over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.take(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, name="collector")
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def grpc_collector() -> Iterator[Collector]:
    """A collector that takes OTLP over gRPC."""

    class Servicer(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(  # noqa: N802 -- the contract's name
            self, request: trace_service_pb2.ExportTraceServiceRequest, _context: grpc.ServicerContext
        ) -> trace_service_pb2.ExportTraceServiceResponse:
            collector.take(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    collector = Collector(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Servicer(), server)
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


def _read(service: str, span: trace_pb2.Span) -> CollectedSpan:
    return CollectedSpan(
        service=service,
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_values(span.attributes),
        events=[event.name for event in span.events],
        is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        state=span.trace_state,
    )


def _values(attributes: object) -> dict[str, object]:
    return {pair.key: _value(pair.value) for pair in attributes}  # type: ignore[attr-defined]


def _value(value: AnyValue) -> object:
    if value.HasField("array_value"):
        return [_value(each) for each in value.array_value.values]
    return getattr(value, str(value.WhichOneof("value")))
