"""Between the private contract's messages and our own types."""

from collections import deque
from dataclasses import fields

from tidemill.engine.v1 import engine_pb2 as pb
from tidemill_services.domain.logprobs import Logprobs
from tidemill_services.engine_client.types import (
    EngineFinish,
    EngineRequest,
    ReplicaLoad,
    ReplicaPhase,
    ReplicaStats,
    ReplicaStatus,
    StartStep,
)
from tidemill_telemetry.call_record import Origin

FINISHES = {
    pb.FINISH_REASON_STOP: EngineFinish.STOP,
    pb.FINISH_REASON_LENGTH: EngineFinish.LENGTH,
    pb.FINISH_REASON_CANCELLED: EngineFinish.CANCELLED,
    pb.FINISH_REASON_DEADLINE: EngineFinish.DEADLINE,
    pb.FINISH_REASON_ERROR: EngineFinish.ERROR,
}
_START_STEPS = {
    pb.StartStep.KIND_PROCESS: StartStep.PROCESS,
    pb.StartStep.KIND_LISTEN: StartStep.LISTEN,
    pb.StartStep.KIND_PACKAGE: StartStep.PACKAGE,
    pb.StartStep.KIND_ENGINE: StartStep.ENGINE,
    pb.StartStep.KIND_GRAPH: StartStep.GRAPH,
    pb.StartStep.KIND_WARM: StartStep.WARM,
}
_MIN_TOP_P = 2.0**-126  # the message has 32 bits for it, and what is smaller would become 0, which no engine takes
_PHASES = {
    pb.PHASE_LOADING: ReplicaPhase.LOADING,
    pb.PHASE_WARMING: ReplicaPhase.WARMING,
    pb.PHASE_READY: ReplicaPhase.READY,
    pb.PHASE_DRAINING: ReplicaPhase.DRAINING,
    pb.PHASE_FAILED: ReplicaPhase.FAILED,
}

_MAX_JOINED_SUBMITS = 32  # a message of them, and of so many prompt tokens, is far below what a replica takes
_MAX_JOINED_TOKENS = 8_192

_STATS = tuple(field.name for field in fields(ReplicaStats))


def write_submit(sequence_id: int, request: EngineRequest) -> pb.ConnectRequest:
    """The message that starts a generation. Raises ValueError for numbers that the contract cannot hold."""
    message = pb.ConnectRequest(
        submit=pb.Submit(
            sequence_id=sequence_id,
            prompt_tokens=request.prompt_tokens,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=max(request.top_p, _MIN_TOP_P) if request.top_p > 0 else request.top_p,
            top_k=request.top_k,
            seed=request.seed,
            stop=request.stop,
            account_salt=request.account_salt,
            exact=request.exact,
            min_p=request.min_p,
            repetition_penalty=None if request.repetition_penalty == 1 else request.repetition_penalty,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            logit_bias=dict(request.logit_bias),
            ignore_eos=request.ignore_eos,
            num_logprobs=request.top_logprobs,
            prompt_group=request.prompt_group,
            origin=None if request.origin is None else _write_origin(request.origin),
        )
    )
    if request.time_left_seconds is not None:
        message.submit.time_left.FromMilliseconds(round(max(0.0, request.time_left_seconds) * 1000))
    return message


def take_next(outgoing: deque[pb.ConnectRequest]) -> pb.ConnectRequest:
    """The next message to send, with the generations of those behind it as long as it stays small."""
    message = outgoing.popleft()
    num_tokens = len(message.submit.prompt_tokens)
    while outgoing and outgoing[0].HasField("submit") and len(message.more_submits) < _MAX_JOINED_SUBMITS:
        num_tokens += len(outgoing[0].submit.prompt_tokens)
        if num_tokens > _MAX_JOINED_TOKENS:
            break
        message.more_submits.append(outgoing.popleft().submit)
    return message


def _write_origin(origin: Origin) -> pb.Origin:
    trace = origin.trace
    return pb.Origin(request_id=origin.request_id, traceparent=trace.traceparent, tracestate=trace.state)


def write_abort(sequence_id: int) -> pb.ConnectRequest:
    """The message that ends a generation."""
    return pb.ConnectRequest(abort=pb.Abort(sequence_id=sequence_id))


def read_status(status: pb.Status) -> ReplicaStatus:
    """How a connected replica is."""
    return ReplicaStatus(
        phase=_PHASES.get(status.phase, ReplicaPhase.LOADING),
        progress=status.progress,
        detail=status.detail.replace("\0", ""),  # which no Postgres takes
        responsive=status.responsive,
        connected=True,
        load=read_load(status.load),
        start_steps=tuple(
            (_START_STEPS[step.kind], step.duration.ToMicroseconds() / 1e6)
            for step in status.start_steps
            if step.kind in _START_STEPS
        ),
    )


def read_stats(stats: pb.Stats) -> ReplicaStats:
    """What it has done."""
    return ReplicaStats(**{name: getattr(stats, name) for name in _STATS})


def read_load(load: pb.Load) -> ReplicaLoad:
    """How busy it is."""
    return ReplicaLoad(load.num_running, load.num_waiting, load.num_slots, load.num_free_tokens)


def read_logprobs(output: pb.SequenceOutput) -> Logprobs | None:
    """Those of the output's tokens; None when none were asked for."""
    chosen = output.logprobs
    return Logprobs(output.token_ids, chosen, output.top_token_ids, output.top_logprobs) if chosen else None
