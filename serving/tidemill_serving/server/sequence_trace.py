"""What is told of one sequence: a line in the log at its end, and a span below the one of the call that it is for."""

import logging

from tidemill_serving.engine import FinishReason, SequenceOutput
from tidemill_telemetry.call_record import Origin
from tidemill_telemetry.logs import about_origin
from tidemill_telemetry.tracing import NoTracing, SpanEnd, SpanKind, Tracing

_log = logging.getLogger(__name__)
_GONE = SequenceOutput(0, finish_reason=FinishReason.CANCELLED)


class SequenceTrace:
    """One sequence from the moment in which the engine took it to its end."""

    def __init__(self, tracing: Tracing, origin: Origin | None) -> None:
        if origin is None:  # nobody would find the span
            tracing = NoTracing()
        self._span = tracing.begin("sequence", SpanKind.SERVER, None if origin is None else origin.trace)
        self._origin = None if origin is None else Origin(origin.request_id, self._span.context)

    def end(self, last: SequenceOutput = _GONE) -> None:
        """It is over; `last` is its last output, and none came when its caller went away."""
        reason = last.finish_reason.value if last.finish_reason is not None else ""
        is_error = last.finish_reason is FinishReason.ERROR
        level = logging.WARNING if is_error else logging.DEBUG
        if _log.isEnabledFor(level):
            text, num_tokens = f"{reason}: {last.error}" if is_error else reason, last.num_completion_tokens
            _log.log(level, "a sequence ended: %s, %d tokens", text, num_tokens, extra=about_origin(self._origin))
        self._span.end(
            lambda: SpanEnd(
                {
                    "gen_ai.usage.input_tokens": last.num_prompt_tokens,
                    "gen_ai.usage.output_tokens": last.num_completion_tokens,
                    "gen_ai.response.finish_reasons": [reason],
                },
                fault=reason if is_error else "",
            )
        )
