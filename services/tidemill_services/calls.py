"""One call from its arrival to its end, whichever door it came by: its ids, its line in the log, its span."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from tidemill_telemetry.call_record import CallRecord, is_request_id, new_request_id, serve_call
from tidemill_telemetry.logs import about
from tidemill_telemetry.trace_context import TraceContext
from tidemill_telemetry.tracing import Attributes, NoTracing, SpanEnd, SpanKind, Tracing

REQUEST_ID_HEADER = "x-request-id"
_NO_TRACING = NoTracing()
_OURS = frozenset({REQUEST_ID_HEADER, "traceparent", "tracestate"})

access_logger = logging.getLogger("tidemill.access")


class Calls:
    """Begins calls."""

    def __init__(self, tracing: Tracing, *, access_log: bool) -> None:
        self._tracing = tracing
        self._access_log = access_log

    def begin(self, method: str, headers: Iterable[tuple[str, str | bytes]], *, is_told: bool = True) -> "Call":
        """A call has arrived, with these headers or metadata; this task serves it from now on.

        Its id is the caller's, if that can be one, and its span is below the caller's. A health check `is_told` nobody.
        """
        found: defaultdict[str, list[str]] = defaultdict(list)
        for name, value in headers:
            if name in _OURS:
                found[name].append(value if isinstance(value, str) else value.decode("latin-1"))
        parent = TraceContext.parse(found["traceparent"], found["tracestate"]) if "traceparent" in found else None
        span = (self._tracing if is_told else _NO_TRACING).begin(method, SpanKind.SERVER, parent)
        request_id = next(filter(is_request_id, found[REQUEST_ID_HEADER]), "") or new_request_id()
        record = CallRecord(request_id, span.context, method)
        serve_call(record)
        return Call(record, span.end, is_logged=is_told and self._access_log)


class Call:
    """A call that is served."""

    def __init__(
        self, record: CallRecord, end_span: Callable[[Callable[[], SpanEnd]], None], *, is_logged: bool
    ) -> None:
        self.record = record
        self._end_span = end_span
        self._is_logged = is_logged
        self._arrived = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long ago it arrived."""
        return time.monotonic() - self._arrived

    def end(self, code: str, reason: str, describe: Callable[[], Attributes], *, is_fault: bool) -> None:
        """It is over. `describe` gives what its protocol says of it in a span; `is_fault` when we failed the caller."""
        record = self.record
        if self._is_logged:
            access_logger.info("%s %s", record.method, code, extra=about(self._access_fields(code, reason)))
        self._end_span(
            lambda: SpanEnd(
                {**describe(), **_own_attributes(record, reason)},
                name=record.method.removeprefix("/"),
                fault=(reason or code) if is_fault else "",
            )
        )

    def _access_fields(self, code: str, reason: str) -> dict[str, object]:
        record = self.record
        fields: dict[str, object] = {"code": code, "duration_ms": round(self.seconds * 1000, 1)}
        if reason := reason or record.failure:
            fields["reason"] = reason
        if record.finish_reasons:
            fields["finish_reason"] = ",".join(sorted(record.finish_reasons))
            fields["prompt_tokens"] = record.prompt_tokens
            fields["completion_tokens"] = record.completion_tokens
        return fields


def _own_attributes(record: CallRecord, reason: str) -> Attributes:
    named = {
        "tidemill.request_id": record.request_id,
        "tidemill.account": record.account,
        "tidemill.session": record.session,
        "tidemill.reason": reason or record.failure,
    }
    return {name: value for name, value in named.items() if value}
