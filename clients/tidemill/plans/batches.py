"""Many inputs in, whole texts out."""

from collections.abc import Iterator, Sequence

from tidemill import methods
from tidemill.errors import BatchError, FieldInvalidError, ProtocolError, TidemillError
from tidemill.plans.following import check_order
from tidemill.plans.generations import Settings
from tidemill.plans.models import OnProgress
from tidemill.results import Completion, finish_reason_of, logprobs_of, progress_of, usage_of
from tidemill.statuses import error_of_message
from tidemill.steps import Deadline, Open, Plan, Read, build, check_count, request_id
from tidemill.v1 import inference_pb2

LARGEST_BATCH = 256
"""Answers of one GenerateBatch call; longer lists are sent in several."""
LARGEST_BATCH_BYTES = 3 << 20
"""Bytes of the inputs of one call, below what a server takes; larger lists are sent in several too."""


def complete_batch(
    sources: Sequence[inference_pb2.Input], settings: Settings, num_answers: int = 1
) -> Plan[list[Completion]]:
    """The whole answers to many inputs in their order, those to one input together; one that failed has an `error`."""
    check_count(num_answers, "n")
    if num_answers > LARGEST_BATCH:
        raise FieldInvalidError(f"n is {num_answers}; it may be {LARGEST_BATCH} at most.", field="n")
    deadline = Deadline(settings.timeout)
    found: list[Completion] = []
    for part in _parts(sources, LARGEST_BATCH // num_answers):
        num_results = len(part) * num_answers
        first = len(found)
        request = build(
            inference_pb2.GenerateBatchRequest,
            model=settings.model,
            session=settings.session,
            inputs=part,
            options=settings.message(seed_offset=first),
            request_id=request_id(),
            num_answers=num_answers if num_answers > 1 else None,
        )
        results: dict[int, Completion] = {}
        try:
            yield from _read_batch(request, num_results, settings.on_progress, results, deadline)
        except TidemillError as error:
            if not found and not results:
                raise
            broken = Completion(text="", finish_reason="error", usage=None, error=error)
            found += (results.get(index, broken) for index in range(num_results))
            found += [broken] * (len(sources) * num_answers - len(found))
            return found
        found += (results[index] for index in range(num_results))
    return found


def _parts(sources: Sequence[inference_pb2.Input], most: int) -> Iterator[list[inference_pb2.Input]]:
    """The inputs in pieces that one call each can carry."""
    part: list[inference_pb2.Input] = []
    num_bytes = 0
    for source in sources:
        if part and (len(part) == most or num_bytes + source.ByteSize() > LARGEST_BATCH_BYTES):
            yield part
            part, num_bytes = [], 0
        part.append(source)
        num_bytes += source.ByteSize()
    if part:
        yield part


def _read_batch(
    request: inference_pb2.GenerateBatchRequest,
    num_results: int,
    on_progress: OnProgress | None,
    results: dict[int, Completion],
    deadline: Deadline,
) -> Plan[None]:
    """Fill `results` by index."""
    call = yield Open(methods.GENERATE_BATCH, request, deadline.remaining())
    expected = 1
    try:
        while (message := (yield Read(call))) is not None:
            check_order(message.sequence_number, expected)
            expected += 1
            if message.HasField("result"):
                results[message.result.index] = _completion_of(message.result, request.request_id)
            elif on_progress is not None:
                on_progress(progress_of(message.keep_alive))
    finally:
        call.cancel()
    if set(results) != set(range(num_results)):
        raise ProtocolError(f"The batch of {len(request.inputs)} inputs ended with {len(results)} results.")


def _completion_of(result: inference_pb2.BatchResult, name: str) -> Completion:
    end = result.end
    error = None
    if end.finish_reason == inference_pb2.FINISH_REASON_ERROR:
        error = error_of_message(end.error, request_id=name)
        error.partial_text = result.text
    return Completion(
        text=result.text,
        finish_reason=finish_reason_of(end.finish_reason),
        usage=usage_of(end.usage) if end.HasField("usage") else None,
        error=error,
        logprobs=logprobs_of(result.logprobs),
    )


def complete_texts(sources: Sequence[inference_pb2.Input], settings: Settings) -> Plan[list[str]]:
    """The texts of the answers to many inputs. Raises BatchError, which carries them, when any of them failed."""
    completions = yield from complete_batch(sources, settings)
    failures = {index: found.error for index, found in enumerate(completions) if found.error is not None}
    texts = [found.text for found in completions]
    if failures:
        raise BatchError(texts, failures)
    return texts
