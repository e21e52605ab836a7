"""Turns a request into a sequence, or says in a sentence why it cannot be run. Nothing passes unseen to a device."""

from collections.abc import Callable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass

import numpy as np

from tidemill_serving.decoder.devices.device import IntArray
from tidemill_serving.decoder.prefix import MAX_SALT_BYTES
from tidemill_serving.decoder.sampler import check_sampling
from tidemill_serving.decoder.sequence import Limits, Sequence, TokenText
from tidemill_serving.engine import GenerationRequest
from tidemill_serving.native.choosing import MAX_TOLD


class RequestRefusedError(Exception):
    """The request cannot be run; the sentence names the field and its limit."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What requests are measured against."""

    limits: Limits
    vocab_size: int
    token_budget: int
    open_text: Callable[[Tokens[int]], TokenText]
    prefix_cache: bool = True
    shares_prefixes: bool = False  # between accounts

    def make_sequence(self, request: GenerationRequest) -> Sequence:
        """Raises RequestRefusedError."""
        prompt = self._check_prompt(request.prompt_tokens)
        if request.max_tokens < 1:
            raise RequestRefusedError(f"max_tokens is {request.max_tokens}; it must be at least 1")
        if sentence := check_sampling(request.sampling):
            raise RequestRefusedError(sentence)
        if len(request.account_salt) > MAX_SALT_BYTES:
            raise RequestRefusedError(f"account_salt may have {MAX_SALT_BYTES} bytes at most")
        for token, _ in request.sampling.logit_bias:
            if not 0 <= token < self.vocab_size:
                raise RequestRefusedError(f"logit_bias names {token}; token ids are 0 to {self.vocab_size - 1}")
        if request.num_logprobs is not None and not 0 <= request.num_logprobs <= MAX_TOLD:
            raise RequestRefusedError(f"num_logprobs is {request.num_logprobs}; it may be 0 to {MAX_TOLD}")
        if not all(request.stop):
            raise RequestRefusedError("a stop string is empty; it must have at least one character")
        text = self.open_text(request.prompt_tokens)
        sequence = Sequence(request, prompt, self.limits, text, cache_salt=self._cache_salt(request))
        if sequence.num_reserved > self.token_budget:
            needed = sequence.num_reserved
            raise RequestRefusedError(f"prompt and max_tokens need {needed} tokens; the cache has {self.token_budget}")
        return sequence

    def _cache_salt(self, request: GenerationRequest) -> bytes | None:
        if not self.prefix_cache:
            return None
        return b"" if self.shares_prefixes else request.account_salt

    def _check_prompt(self, prompt_tokens: Tokens[int]) -> IntArray:
        """The prompt as an array of token ids, each within the vocabulary."""
        longest = self.limits.context_length - 1  # the answer needs a token
        if not 1 <= len(prompt_tokens) <= longest:
            raise RequestRefusedError(f"prompt_tokens has {len(prompt_tokens)} tokens; it may have 1 to {longest}")
        prompt = np.asarray(prompt_tokens)
        if prompt.dtype.kind not in "iu" or prompt.ndim != 1:
            raise RequestRefusedError("prompt_tokens must be whole numbers")
        if prompt.min() < 0 or prompt.max() >= self.vocab_size:
            wrong = next(int(token) for token in prompt if not 0 <= token < self.vocab_size)
            raise RequestRefusedError(f"prompt_tokens holds {wrong}; token ids are 0 to {self.vocab_size - 1}")
        return prompt.astype(np.int64)
