"""What is told of one generation: to the record of its call, to the replica that runs it, and in a span."""

from tidemill_services.domain.generation import FinishReason
from tidemill_services.generation_admission import Admitted
from tidemill_services.generation_run import GenerationRun
from tidemill_telemetry.call_record import CallRecord, Origin, current_call, new_request_id
from tidemill_telemetry.trace_context import TraceContext
from tidemill_telemetry.tracing import SpanEnd, SpanKind, Tracing


class GenerationTrace:
    """One generation from its admission to its end. Its text is told nobody."""

    def __init__(self, tracing: Tracing, admitted: Admitted) -> None:
        self._call = current_call() or CallRecord(new_request_id(), TraceContext.new())
        self._admitted = admitted
        self._span = tracing.begin(f"{admitted.operation} {admitted.model}", SpanKind.CLIENT, self._call.trace)

    @property
    def origin(self) -> Origin:
        """What the replica is told."""
        return Origin(self._call.request_id, self._span.context)

    def end(self, run: GenerationRun, failure: str) -> None:
        """It is over; `failure` is the reason of the error that ended it."""
        call = self._call
        call.finish_reasons.add(run.finish_reason)
        call.prompt_tokens += run.admitted.num_prompt_tokens
        call.completion_tokens += run.num_tokens
        call.failure = call.failure or failure
        self._span.end(lambda: self._describe(run, failure))

    def _describe(self, run: GenerationRun, failure: str) -> SpanEnd:
        admitted, request = self._admitted, self._admitted.request
        attributes: dict[str, str | int | float | list[str]] = {
            "gen_ai.operation.name": admitted.operation,
            "gen_ai.provider.name": "tidemill",
            "gen_ai.request.model": admitted.model,
            "gen_ai.request.max_tokens": request.max_tokens,
            "gen_ai.request.temperature": request.temperature,
            "gen_ai.request.top_p": request.top_p,
            "gen_ai.response.finish_reasons": [run.finish_reason],
            "gen_ai.usage.input_tokens": admitted.num_prompt_tokens,
            "gen_ai.usage.output_tokens": run.num_tokens,
            "tidemill.session": admitted.session_id,
        }
        events = []
        if run.taken is not None:
            events.append(("leased", run.taken))
        if run.first_text is not None:
            events.append(("first token", run.first_text))
            attributes["gen_ai.response.time_to_first_chunk"] = run.first_text - run.arrived
        fault = failure if run.finish_reason is FinishReason.ERROR else ""
        return SpanEnd(attributes, events=events, fault=fault)
