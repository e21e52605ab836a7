"""Spans by OpenTelemetry, sent to a collector over OTLP. The only place that knows it; needs the extra `otel`."""

import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from tidemill_telemetry.otel_variables import GRPC, protocol_of
from tidemill_telemetry.trace_context import TraceContext
from tidemill_telemetry.tracing import Attributes, Span, SpanEnd, SpanKind

CLOSE_SECONDS = 2.0  # for what waits to be sent; a collector that is away holds nobody up longer
_KINDS = {SpanKind.SERVER: trace.SpanKind.SERVER, SpanKind.CLIENT: trace.SpanKind.CLIENT}


class OtelTracing:
    """See `Tracing`. A thread of the SDK sends; what does not fit its queue is dropped and logged, nobody waits."""

    def __init__(self, service: str, attributes: Attributes, environ: Mapping[str, str]) -> None:
        """Samplers, limits, queues and resource attributes are read by the SDK. Raises what it says of them."""
        named = {"service.name": environ.get("OTEL_SERVICE_NAME") or service, "service.version": version("tidemill")}
        resource = Resource.create({**named, **attributes})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # `close` does, and in bounds
        self._provider.add_span_processor(BatchSpanProcessor(_exporter(environ)))
        self._tracer = self._provider.get_tracer("tidemill", version("tidemill"))

    def begin(self, name: str, kind: SpanKind, parent: TraceContext | None) -> Span:
        """A span, recorded if the sampler says so."""
        context = trace.set_span_in_context(trace.NonRecordingSpan(_to_otel(parent, kind)) if parent else _NO_SPAN)
        return _OtelSpan(self._tracer.start_span(name, context, _KINDS[kind]))

    def close(self) -> None:
        """Send what waits, for a few seconds; the thread that still tries then ends with the process."""
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


class _OtelSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.context = _from_otel(span.get_span_context())

    def end(self, describe: Callable[[], SpanEnd]) -> None:
        if self._span.is_recording():
            end = describe()
            if end.name:
                self._span.update_name(end.name)
            self._span.set_attributes(dict(end.attributes))
            since_epoch_s = time.time() - time.monotonic()
            for event, at in sorted(end.events, key=lambda pair: pair[1]):
                self._span.add_event(event, timestamp=int((since_epoch_s + at) * 1e9))
            if end.fault:
                self._span.set_attribute("error.type", end.fault)
                self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()


_NO_SPAN = trace.INVALID_SPAN


def _to_otel(context: TraceContext, kind: SpanKind) -> trace.SpanContext:
    return trace.SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=kind is SpanKind.SERVER,
        trace_flags=trace.TraceFlags(context.flags),
        trace_state=trace.TraceState.from_header([context.state] if context.state else []),
    )


def _from_otel(context: trace.SpanContext) -> TraceContext:
    return TraceContext(
        f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags), context.trace_state.to_header()
    )


def _exporter(environ: Mapping[str, str]) -> SpanExporter:
    """By the protocol that the environment names; the exporters read where to."""
    _, protocol = protocol_of(environ)
    if protocol == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415 -- one of the two
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 -- one of the two
        OTLPSpanExporter as HttpExporter,
    )

    return HttpExporter()
