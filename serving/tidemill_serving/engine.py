"""The port behind which every engine stands: load a model, take generations, hand out what it makes.

An engine works in a thread of its own. It calls `EngineListener` from that thread; whoever implements the
listener brings the call to where it belongs (the server posts it to its event loop).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from tidemill_telemetry.call_record import Origin


class Phase(Enum):
    """Where a replica's engine is in its life, in this order."""

    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class FinishReason(Enum):
    """Why a generation ended."""

    STOP = "stop"  # an end-of-sequence token or a stop string
    LENGTH = "length"  # max_tokens or the context length
    CANCELLED = "cancelled"  # the caller aborted
    DEADLINE = "deadline"  # its deadline passed
    ERROR = "error"  # the engine could not go on; see `error`


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. `temperature = 0` is greedy and ignores `top_p`, `top_k`, `min_p` and `seed`."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0: no limit
    seed: int | None = None  # None: drawn by the engine
    min_p: float = 0.0  # 0: no limit
    repetition_penalty: float = 1.0  # of tokens in the prompt and the answer; 1: none
    presence_penalty: float = 0.0  # of tokens in the answer, once
    frequency_penalty: float = 0.0  # of tokens in the answer, each time
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token, what is added to its logit)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation as an engine takes it."""

    sequence_id: int
    prompt_tokens: Sequence[int]
    max_tokens: int
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False  # an end-of-sequence token is a token as any other
    num_logprobs: int | None = None  # of the likeliest tokens beside the chosen one; None: none at all
    prompt_group: Hashable = None  # those of one group have the same prompt, which is computed once; None: in no group
    deadline: float | None = None  # on the clock of `time.monotonic`
    account_salt: bytes = b""  # stands for who asks: prompts are shared, and turns taken, by it
    exact: bool = False  # the answer must not depend on what ran before, see docs/exactness.md
    origin: Origin | None = None  # the call that it is for, which log lines about it name


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logarithms of probabilities by the model alone: no penalty, no bias, no temperature."""

    chosen: float
    top: tuple[tuple[int, float], ...] = ()  # (token, its logarithm) of the likeliest, the likeliest first


@dataclass(slots=True)
class SequenceOutput:
    """What one step made for one sequence; the last one of a sequence has a `finish_reason`. Nobody changes it.

    It is not frozen, since one is made for every token and that would triple its cost.
    """

    sequence_id: int
    text: str = ""  # complete characters only; never part of a stop string
    token_ids: tuple[int, ...] = ()  # all tokens made in this step, an end-of-sequence token included
    finish_reason: FinishReason | None = None
    error: str = ""  # a sentence, with FinishReason.ERROR
    num_prompt_tokens: int = 0  # with finish_reason
    num_completion_tokens: int = 0  # with finish_reason: every token that was made, also those held back
    num_cached_prompt_tokens: int = 0  # with finish_reason: of the prompt, those that had been computed before
    logprobs: tuple[TokenLogprobs, ...] = ()  # of each of `token_ids`, if they were asked for


@dataclass(slots=True)
class Load:
    """How busy an engine is, told with each step so that callers route on truth. Nobody changes it, as above."""

    num_running: int
    num_waiting: int
    num_slots: int
    num_free_tokens: int  # room in the KV cache that no running generation holds, in tokens


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine has done since its start, and what it holds; an engine that cannot say leaves it at 0."""

    token_budget: int = 0  # that the KV cache may hold at once
    num_held_tokens: int = 0  # by running generations
    num_kept_tokens: int = 0  # of ended ones; they give way
    num_preemptions: int = 0  # running to waiting, because room was short
    num_decode_runs: int = 0
    num_decode_tokens: int = 0  # one for each row of each run
    decode_seconds: float = 0.0
    num_prefill_runs: int = 0
    num_prefill_tokens: int = 0  # prompt tokens that were computed
    prefill_seconds: float = 0.0


@dataclass(slots=True)
class Step:
    """All that one step of the engine made, for every sequence that got something. Nobody changes it, as above."""

    number: int
    outputs: tuple[SequenceOutput, ...]
    load: Load


class EngineListener(Protocol):
    """Hears what an engine does. Called from the engine's thread; must not block."""

    def on_phase(self, phase: Phase, progress: float, detail: str) -> None:
        """The engine entered `phase` or moved on in it; `progress` is 0 to 1 within the whole start."""

    def on_step(self, step: Step) -> None:
        """A step ended."""


class EngineBusyError(Exception):
    """All slots and the few waiting places are taken; the control plane's queue holds the rest."""


class EngineStoppedError(EngineBusyError):
    """The engine failed or was closed, and takes nothing any more."""


class Engine(Protocol):
    """Answers generations of one model in this process. All methods may be called from any thread."""

    def start(self, listener: EngineListener) -> None:
        """Load and warm the model in the engine's own thread, then step whenever there is work."""

    def submit(self, request: GenerationRequest) -> None:
        """Take a generation in; its id must be unique among those that have not ended (else ValueError).

        Raises EngineBusyError, EngineStoppedError. A request that cannot be run ends with an ERROR output.
        """

    def abort(self, sequence_id: int) -> None:
        """End a generation within one step, with CANCELLED. Unknown and finished ids are ignored."""

    def load(self) -> Load:
        """How busy the engine is now."""

    def stats(self) -> EngineStats:
        """What it has done, up to a moment ago."""

    def is_responsive(self) -> bool:
        """Whether the engine's thread showed life within max(5 s, 5 times its longest step of that kind so far)."""

    def last_life(self) -> float:
        """When the engine's thread showed life last, on the clock of `time.monotonic`."""

    def close(self) -> None:
        """Abort what runs, end the thread, free the model. Returns when the thread has ended (at most 10 s)."""
