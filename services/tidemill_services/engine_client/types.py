"""What is said between the control plane and a replica, in our own types."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tidemill_services.domain.errors import QueueFullError
from tidemill_services.domain.logprobs import Logprobs
from tidemill_telemetry.call_record import Origin


class EngineFinish(StrEnum):
    """Why a replica ended a generation."""

    STOP = "stop"  # an end-of-sequence token or a stop string
    LENGTH = "length"  # max_tokens or the context length
    CANCELLED = "cancelled"  # it was aborted
    DEADLINE = "deadline"  # its time was over
    ERROR = "error"  # it broke; see `error`


class ReplicaPhase(StrEnum):
    """Where a replica is in its life."""

    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class ReplicaRejectedError(QueueFullError):
    """The replica took nothing: its places are full, it is not ready, or it drains. Lease again."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One generation as a replica takes it."""

    prompt_tokens: Sequence[int]
    max_tokens: int
    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: no limit
    seed: int | None = None  # None: drawn by the engine
    stop: tuple[str, ...] = ()
    exact: bool = False  # the answer must not depend on what ran before
    min_p: float = 0.0  # 0: no limit
    repetition_penalty: float = 1.0  # 1: none
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token, what is added to its logit)
    ignore_eos: bool = False
    top_logprobs: int | None = None  # None: no log-probabilities at all
    prompt_group: int = 0  # those of one group have the same prompt, which is computed once; 0: in no group


@dataclass(frozen=True, slots=True)
class OnBehalf:
    """For whom a replica makes a generation, and how long it may take. Known when it is sent, and not before."""

    account_salt: bytes = b""  # stands for the account; a replica cannot tell which
    origin: Origin | None = None  # the call that it is for, which the replica's log and spans name
    time_left_seconds: float | None = None  # None: no deadline


NOBODY = OnBehalf()


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """What was made since the last output; the last one has a `finish_reason`, its counts and, with ERROR, why."""

    text: str  # complete characters only
    num_tokens: int  # made in this output, also those without text
    token_ids: tuple[int, ...]
    finish_reason: EngineFinish | None = None
    error: str = ""
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0  # every token that was made
    num_cached_prompt_tokens: int = 0  # of the prompt, those that had been computed before
    logprobs: Logprobs | None = None  # of these tokens, if they were asked for


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """How busy a replica is."""

    num_running: int = 0
    num_waiting: int = 0
    num_slots: int = 0  # 0 until its model is known
    num_free_tokens: int = 0


class StartStep(StrEnum):
    """A step of a replica's start."""

    PROCESS = "process"  # from its process's start, or a spare's orders, until it knows what to serve: imports
    LISTEN = "listen"
    PACKAGE = "package"  # checking it
    ENGINE = "engine"  # the engine's own imports; the tokenizer is read beside them and the graph
    GRAPH = "graph"  # loading it and its weights
    WARM = "warm"  # the first runs


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """What a replica's engine has done since its start, and what it holds."""

    token_budget: int = 0  # that its KV cache may hold at once
    num_held_tokens: int = 0  # by running generations
    num_kept_tokens: int = 0  # of ended ones; they give way
    resident_bytes: int = 0  # memory of its process
    num_preemptions: int = 0  # running to waiting, because room was short
    num_decode_runs: int = 0
    num_decode_tokens: int = 0  # one for each row of each run
    decode_seconds: float = 0.0
    num_prefill_runs: int = 0
    num_prefill_tokens: int = 0  # prompt tokens that were computed
    prefill_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """How a replica is, as it said last. What is not `connected` never comes back: it takes a new client."""

    phase: ReplicaPhase
    progress: float  # 0 to 1 within the whole start
    detail: str  # a sentence; why, when it failed or was lost
    responsive: bool  # whether its engine shows life
    connected: bool
    load: ReplicaLoad = ReplicaLoad()
    start_steps: tuple[tuple[StartStep, float], ...] = ()  # of its start, those that have ended; seconds
    last_life: float | None = None  # when it showed life last, by `time.monotonic`; None while it is responsive

    @property
    def takes_generations(self) -> bool:
        """Whether a generation may be sent there."""
        return self.connected and self.responsive and self.phase is ReplicaPhase.READY
