"""Between the private contract's messages and the engine's own types."""

import math
import resource
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tidemill.engine.v1 import engine_pb2 as pb
from tidemill_serving.engine import (
    EngineStats,
    FinishReason,
    GenerationRequest,
    Load,
    Phase,
    Sampling,
    SequenceOutput,
    TokenLogprobs,
)
from tidemill_serving.start_times import StartStep
from tidemill_telemetry.call_record import Origin, is_request_id
from tidemill_telemetry.trace_context import TraceContext

_FINISH_REASONS = {
    None: pb.FINISH_REASON_UNSPECIFIED,
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: pb.FINISH_REASON_CANCELLED,
    FinishReason.DEADLINE: pb.FINISH_REASON_DEADLINE,
    FinishReason.ERROR: pb.FINISH_REASON_ERROR,
}
_PHASES = {
    Phase.LOADING: pb.PHASE_LOADING,
    Phase.WARMING: pb.PHASE_WARMING,
    Phase.READY: pb.PHASE_READY,
    Phase.DRAINING: pb.PHASE_DRAINING,
    Phase.FAILED: pb.PHASE_FAILED,
}
_START_STEPS = {
    StartStep.PROCESS: pb.StartStep.KIND_PROCESS,
    StartStep.LISTEN: pb.StartStep.KIND_LISTEN,
    StartStep.PACKAGE: pb.StartStep.KIND_PACKAGE,
    StartStep.ENGINE: pb.StartStep.KIND_ENGINE,
    StartStep.GRAPH: pb.StartStep.KIND_GRAPH,
    StartStep.WARM: pb.StartStep.KIND_WARM,
}


class SubmitInvalidError(Exception):
    """A Submit that no engine could run; the sentence names the field and its limit."""


def read_submit(submit: pb.Submit, engine_id: int, caller: Hashable = None) -> GenerationRequest:
    """The generation that `submit` asks for, under the engine's own id. Raises SubmitInvalidError.

    `caller` tells groups of different callers apart.
    """
    if not submit.prompt_tokens:
        raise SubmitInvalidError("prompt_tokens is empty: send at least one token.")
    if submit.max_tokens < 1:
        raise SubmitInvalidError("max_tokens must be at least 1.")
    if any(not stop for stop in submit.stop):
        raise SubmitInvalidError("stop holds an empty string: send none, or strings of at least one character.")
    return GenerationRequest(
        sequence_id=engine_id,
        prompt_tokens=tuple(submit.prompt_tokens),
        max_tokens=submit.max_tokens,
        sampling=_read_sampling(submit),
        stop=tuple(submit.stop),
        ignore_eos=submit.ignore_eos,
        num_logprobs=submit.num_logprobs if submit.HasField("num_logprobs") else None,
        prompt_group=(caller, submit.prompt_group) if submit.prompt_group else None,
        deadline=_read_deadline(submit),
        origin=_read_origin(submit),
        account_salt=submit.account_salt,
        exact=submit.exact,
    )


def _read_sampling(submit: pb.Submit) -> Sampling:
    if not math.isfinite(submit.temperature) or submit.temperature < 0:
        raise SubmitInvalidError(f"temperature must be a number of at least 0, not {submit.temperature}.")
    if not 0 < submit.top_p <= 1:
        raise SubmitInvalidError(f"top_p must be above 0 and at most 1, not {submit.top_p}.")
    return Sampling(
        temperature=submit.temperature,
        top_p=submit.top_p,
        top_k=submit.top_k,
        seed=submit.seed if submit.HasField("seed") else None,
        min_p=submit.min_p,
        repetition_penalty=submit.repetition_penalty if submit.HasField("repetition_penalty") else 1.0,
        presence_penalty=submit.presence_penalty,
        frequency_penalty=submit.frequency_penalty,
        logit_bias=tuple(sorted(submit.logit_bias.items())),
    )


def _read_deadline(submit: pb.Submit) -> float | None:
    if not submit.HasField("time_left"):
        return None
    return time.monotonic() + submit.time_left.seconds + submit.time_left.nanos / 1e9


def _read_origin(submit: pb.Submit) -> Origin | None:
    origin = submit.origin
    trace = TraceContext.parse([origin.traceparent], [origin.tracestate])
    if trace is None or not is_request_id(origin.request_id):
        return None
    return Origin(origin.request_id, trace)


def write_status(
    phase: Phase, progress: float, detail: str, *, silent_seconds: float | None, load: Load, stats: EngineStats
) -> pb.ConnectResponse:
    """How the replica is, as its callers hear it; `silent_seconds` is None while the engine shows life."""
    status = pb.Status(
        phase=_PHASES[phase],
        progress=progress,
        detail=detail,
        load=_write_load(load),
        responsive=silent_seconds is None,
        stats=pb.Stats(resident_bytes=_resident_bytes(), **asdict(stats)),
    )
    if silent_seconds is not None:
        status.silent_for.FromMilliseconds(round(silent_seconds * 1000))
    return pb.ConnectResponse(status=status)


def add_start_steps(response: pb.ConnectResponse, seconds: Mapping[StartStep, float]) -> None:
    """Say in a status how long the steps of the start took."""
    for step, taken in seconds.items():
        message = response.status.start_steps.add(kind=_START_STEPS[step])
        message.duration.FromMicroseconds(round(taken * 1e6))


def write_step(
    number: int, outputs: Iterable[tuple[int, Sequence[SequenceOutput]]], rejected: Iterable[int], load: Load
) -> pb.ConnectResponse:
    """One message for `outputs` (the caller's id, what was made for it in order) and for the ids not taken."""
    response = pb.ConnectResponse(step=pb.Step(number=number, load=_write_load(load)))
    add = response.step.outputs.add
    for sequence_id, parts in outputs:
        last = parts[-1]
        # Most messages carry one token of each sequence: no joining, and no fields that say nothing.
        message = (
            add(sequence_id=sequence_id, text=last.text, token_ids=last.token_ids)
            if len(parts) == 1
            else add(
                sequence_id=sequence_id,
                text="".join(part.text for part in parts),
                token_ids=[token for part in parts for token in part.token_ids],
            )
        )
        if parts[0].logprobs or last.logprobs:
            _write_logprobs(message, [each for part in parts for each in part.logprobs])
        if last.finish_reason is not None:
            message.finish_reason = _FINISH_REASONS[last.finish_reason]
            message.error = last.error
            message.num_prompt_tokens = last.num_prompt_tokens
            message.num_completion_tokens = last.num_completion_tokens
            message.num_cached_prompt_tokens = last.num_cached_prompt_tokens
    for sequence_id in rejected:
        add(sequence_id=sequence_id, finish_reason=pb.FINISH_REASON_REJECTED)
    return response


def _resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _write_logprobs(message: pb.SequenceOutput, logprobs: Sequence[TokenLogprobs]) -> None:
    message.logprobs.extend([each.chosen for each in logprobs])
    message.top_token_ids.extend([token for each in logprobs for token, _ in each.top])
    message.top_logprobs.extend([logprob for each in logprobs for _, logprob in each.top])


def _write_load(load: Load) -> pb.Load:
    return pb.Load(
        num_running=load.num_running,
        num_waiting=load.num_waiting,
        num_slots=load.num_slots,
        num_free_tokens=load.num_free_tokens,
    )
