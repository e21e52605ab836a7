"""One generation inside the engine."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import numpy as np

from tidemill_models.stop_strings import StopMatcher
from tidemill_serving.decoder.devices.device import IntArray, SavedCache
from tidemill_serving.decoder.prefix import BLOCK_LENGTH, Chain, extend_chain
from tidemill_serving.decoder.wish import Wish
from tidemill_serving.engine import FinishReason, GenerationRequest, SequenceOutput, TokenLogprobs


class TokenText(Protocol):
    """Turns tokens into text as they come, complete characters only."""

    def push_one(self, token_id: int) -> str:
        """The text that this token completes."""

    def finish(self) -> str:
        """What is left."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a generation, beside its own wishes."""

    context_length: int
    eos_token_ids: frozenset[int]


class State(Enum):
    """Where a sequence is: waiting for a slot, its prompt going into the cache, or making tokens."""

    WAITING = "waiting"  # also of one that had a slot and gave it up
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(slots=True, eq=False)
class Sequence:
    """A request with what the engine has made of it so far."""

    request: GenerationRequest
    prompt: IntArray
    limits: Limits
    text: TokenText
    cache_salt: bytes | None = None  # None: takes no part in the prefix cache
    prompt_chain: Chain = ()
    state: State = State.WAITING
    slot: int = -1  # while it has none
    num_cached: int = 0  # tokens whose keys and values are in the slot, or saved
    saved: SavedCache | None = None  # what was in its slot, while it waits for another
    admitted_as: int = 0  # counts first admissions; the highest is the youngest
    num_reused: int = 0  # prompt tokens that were found in the cache
    first_inexact: int = field(init=False)  # from here on the cache is not what a prefill would have made, bit by bit
    completion: list[int] = field(default_factory=list)  # all tokens made; the last one is not in the cache yet
    wish: Wish = field(init=False)  # of each next token
    _sequence_id: int = field(init=False)
    _stops: StopMatcher | None = field(init=False)
    _longest_answer: int = field(init=False)  # tokens
    _ends: frozenset[int] = field(init=False)  # tokens that end the answer

    def __post_init__(self) -> None:
        self.first_inexact = len(self.prompt)
        self.wish = Wish(self.request.sampling, prompt=self.prompt, num_logprobs=self.request.num_logprobs)
        self._sequence_id = self.request.sequence_id
        self._stops = StopMatcher(self.request.stop) if self.request.stop else None
        self._longest_answer = min(self.request.max_tokens, self.limits.context_length - len(self.prompt))
        self._ends = frozenset() if self.request.ignore_eos else self.limits.eos_token_ids
        if self.cache_salt is not None:
            self.prompt_chain = extend_chain((), self.prompt, self.cache_salt)

    @property
    def num_completion_tokens(self) -> int:
        """Tokens made so far."""
        return len(self.completion)

    @property
    def last_token(self) -> int:
        """The newest token."""
        return self.completion[-1]

    @property
    def num_reserved(self) -> int:
        """The most tokens of cache that this sequence can come to need."""
        return min(len(self.prompt) + self.request.max_tokens, self.limits.context_length)

    @property
    def num_prompt_left(self) -> int:
        """Prompt tokens that are not in the cache yet."""
        return len(self.prompt) - self.num_cached

    @property
    def num_held(self) -> int:
        """Tokens of cache that it needs now: its prompt is one wish."""
        return max(len(self.prompt), self.num_cached)

    @property
    def num_exact(self) -> int:
        """Tokens at the cache's start that are what a prefill of them makes, bit by bit."""
        return min(self.num_cached, self.first_inexact)

    @property
    def prompt_chain_in_cache(self) -> Chain:
        """The whole blocks of the prompt that are in the cache."""
        return self.prompt_chain[: self.num_cached // BLOCK_LENGTH]

    def chain(self) -> Chain:
        """All whole blocks that are in the cache, those of the answer too."""
        if self.cache_salt is None or self.num_prompt_left >= 0:
            return self.prompt_chain_in_cache
        made = np.asarray(self.completion[: self.num_cached - len(self.prompt)], np.int64)
        return extend_chain(self.prompt_chain, np.concatenate((self.prompt, made)), self.cache_salt)

    def reuse(self, num_tokens: int, num_exact: int) -> None:
        """Its first tokens are in its slot already; so many of them are exact."""
        self.num_cached = self.num_reused = num_tokens
        if num_tokens > num_exact:
            self.first_inexact = num_exact

    def take(self, token: int, logprobs: TokenLogprobs | None = None) -> SequenceOutput:
        """Take the next token; the output says whether it was the last."""
        self.completion.append(token)
        token_ids, told = (token,), () if logprobs is None else (logprobs,)
        if token in self._ends:
            return self.end(FinishReason.STOP, token_ids=token_ids, logprobs=told)
        text = self.text.push_one(token)
        if self._stops is not None:
            text, hit = self._stops.push(text)
            if hit:
                return self._output(text, token_ids, FinishReason.STOP, logprobs=told)
        if len(self.completion) >= self._longest_answer:
            return self.end(FinishReason.LENGTH, before=text, token_ids=token_ids, logprobs=told)
        return SequenceOutput(self._sequence_id, text, token_ids, logprobs=told)

    def end(
        self,
        reason: FinishReason,
        *,
        before: str = "",
        token_ids: tuple[int, ...] = (),
        logprobs: tuple[TokenLogprobs, ...] = (),
    ) -> SequenceOutput:
        """End with all text that was held back, up to a stop string that the last of it completes."""
        text = self.text.finish()
        if self._stops is not None:
            text, hit = self._stops.push(text)
            if not hit:
                text += self._stops.finish()
            elif reason is FinishReason.LENGTH:
                reason = FinishReason.STOP
        return self._output(before + text, token_ids, reason, logprobs=logprobs)

    def fail(self, error: str) -> SequenceOutput:
        """End with ERROR and a sentence; text that was held back is not worth a second failure."""
        return self._output("", (), FinishReason.ERROR, error)

    def _output(
        self,
        text: str,
        token_ids: tuple[int, ...],
        reason: FinishReason,
        error: str = "",
        logprobs: tuple[TokenLogprobs, ...] = (),
    ) -> SequenceOutput:
        return SequenceOutput(
            sequence_id=self._sequence_id,
            text=text,
            token_ids=token_ids,
            finish_reason=reason,
            error=error,
            num_prompt_tokens=len(self.prompt),
            num_completion_tokens=self.num_completion_tokens,
            num_cached_prompt_tokens=self.num_reused,
            logprobs=logprobs,
        )
