"""What is told of a generation: signs that it waits, more text, its end."""

from dataclasses import dataclass

from tidemill_services.domain.errors import TidemillError
from tidemill_services.domain.generation import FinishReason, Usage
from tidemill_services.domain.logprobs import Logprobs
from tidemill_services.scaler.replicas import WaitStatus


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing new; what it waits for."""

    status: WaitStatus


@dataclass(frozen=True, slots=True)
class Delta:
    """More text."""

    text: str
    num_tokens: int
    logprobs: Logprobs | None = None  # of these tokens, if they were asked for


@dataclass(frozen=True, slots=True)
class End:
    """The last event of a generation."""

    finish_reason: FinishReason
    usage: Usage
    error: TidemillError | None = None
    last: Delta | None = None  # the text before it, where both are told at once


Event = Waiting | Delta | End
