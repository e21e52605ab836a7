"""From a generation's events to the messages of its stream."""

from collections.abc import Iterator
from typing import assert_never

from tidemill.v1 import inference_pb2
from tidemill_services.api.convert import duration, usage
from tidemill_services.api.model_messages import MODEL_STATES, START_PHASES
from tidemill_services.api.statuses import error_message
from tidemill_services.batch import BatchResult
from tidemill_services.domain.generation import FinishReason
from tidemill_services.domain.logprobs import Candidate, Logprobs
from tidemill_services.generation_events import Delta, End, Event, Waiting
from tidemill_services.whole_answer import WholeAnswer

FINISH_REASONS = {
    FinishReason.STOP: inference_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: inference_pb2.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: inference_pb2.FINISH_REASON_CANCELLED,
    FinishReason.SESSION_STOPPED: inference_pb2.FINISH_REASON_SESSION_STOPPED,
    FinishReason.ERROR: inference_pb2.FINISH_REASON_ERROR,
}


def generate_response(sequence_number: int, event: Event) -> inference_pb2.GenerateResponse:
    """One message of Generate's stream."""
    response = inference_pb2.GenerateResponse(sequence_number=sequence_number)
    match event:
        case Delta():
            _fill(response.delta, event)
        case Waiting():
            response.keep_alive.CopyFrom(_keep_alive(event))
        case End():
            response.end.CopyFrom(_end(event))
            if event.last is not None:
                _fill(response.last_delta, event.last)
        case _:
            assert_never(event)
    return response


def complete_response(answer: WholeAnswer) -> inference_pb2.CompleteResponse:
    """Complete's answer."""
    response = inference_pb2.CompleteResponse(text=answer.text, end=_end(answer.end))
    if answer.logprobs is not None:
        response.logprobs.extend(_logprobs(answer.logprobs))
    return response


def generate_batch_response(sequence_number: int, event: BatchResult | Waiting) -> inference_pb2.GenerateBatchResponse:
    """One message of GenerateBatch's stream."""
    if isinstance(event, Waiting):
        return inference_pb2.GenerateBatchResponse(sequence_number=sequence_number, keep_alive=_keep_alive(event))
    result = inference_pb2.BatchResult(index=event.index, text=event.text, end=_end(event.end))
    if event.logprobs is not None:
        result.logprobs.extend(_logprobs(event.logprobs))
    return inference_pb2.GenerateBatchResponse(sequence_number=sequence_number, result=result)


def _fill(delta: inference_pb2.Delta, event: Delta) -> None:
    delta.text = event.text
    delta.num_tokens = event.num_tokens
    if event.logprobs is not None:
        delta.logprobs.extend(_logprobs(event.logprobs))


def _logprobs(logprobs: Logprobs) -> Iterator[inference_pb2.TokenLogprob]:
    for chosen, top in logprobs:
        yield inference_pb2.TokenLogprob(chosen=_candidate(chosen), top=[_candidate(each) for each in top])


def _candidate(candidate: Candidate) -> inference_pb2.TokenLogprob.Candidate:
    return inference_pb2.TokenLogprob.Candidate(
        token_id=candidate.token_id, text=candidate.text, logprob=candidate.logprob
    )


def _end(event: End) -> inference_pb2.GenerationEnd:
    return inference_pb2.GenerationEnd(
        finish_reason=FINISH_REASONS[event.finish_reason],
        usage=usage(event.usage),
        error=None if event.error is None else error_message(event.error),
    )


def _keep_alive(event: Waiting) -> inference_pb2.KeepAlive:
    status = event.status
    return inference_pb2.KeepAlive(
        model_state=MODEL_STATES[status.model_state],
        phase=START_PHASES[status.phase],
        progress=status.progress,
        time_to_ready=duration(None if status.time_to_ready_ms is None else status.time_to_ready_ms / 1000),
        queue_position=status.queue_position,
    )
