"""What a generation needs before it may run: who pays for it, and a request that the engine takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from tidemill_services.catalogue import ServedModel
from tidemill_services.domain.generation import (
    ChatInput,
    GenerationOptions,
    PromptInput,
    WaitPolicy,
    tokens_to_make,
)
from tidemill_services.domain.price import Price
from tidemill_services.domain.sampling import check_biased_tokens, check_whole_logprobs
from tidemill_services.engine_client import EngineRequest
from tidemill_services.usage_limits import CallPlaces

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A generation that may run: who pays, the tokens of its prompt, and how it runs."""

    model: str
    operation: Literal["chat", "text_completion"]
    account_id: str
    session_id: str  # empty: the account pays by tokens
    price: Price | None  # of these; None: the session pays
    request: EngineRequest
    wait: WaitPolicy
    arrived: float  # when the request came, on the clock of `time.monotonic`
    places: CallPlaces  # to run in, shared by the generations of its call
    text_of_token: Callable[[int], bytes]
    counts_prompt: bool = True  # false for all but the first of several answers to one prompt

    @property
    def num_prompt_tokens(self) -> int:
        """What counts as used."""
        return len(self.request.prompt_tokens) if self.counts_prompt else 0


@dataclass(frozen=True, slots=True)
class Admission:
    """The right to run generations on a model with some options: who asks, and what pays."""

    served: ServedModel
    account_id: str
    session_id: str  # empty: the account pays by tokens
    price: Price | None  # of these
    options: GenerationOptions
    arrived: float  # when the request came, on the clock of `time.monotonic`
    places: CallPlaces
    prompt_group: int = 0  # of the several answers to one prompt; 0: there is one
    counts_prompt: bool = True  # false for all but the first of them

    async def take(self, prompt: PromptInput | ChatInput, *, field: str) -> Admitted:
        """Check and encode one prompt; errors name `field`, its path in the request."""
        tokens = await self.served.encode(prompt, field)
        return Admitted(
            model=self.served.name,
            operation="chat" if isinstance(prompt, ChatInput) else "text_completion",
            account_id=self.account_id,
            session_id=self.session_id,
            price=self.price,
            request=engine_request(self.served, tokens, self.options, field, self.prompt_group),
            wait=self.options.wait,
            arrived=self.arrived,
            places=self.places,
            text_of_token=self.served.encoder.tokenizer.token_bytes,
            counts_prompt=self.counts_prompt,
        )

    def check_whole(self, num_answers: int = 1, *, field: str = "options.top_logprobs") -> None:
        """Raise FieldInvalidError when so many answers that come whole may have too many log-probabilities."""
        max_tokens = self.options.max_tokens or self.served.manifest.defaults.max_tokens
        longest = min(max_tokens, self.served.context_length)
        check_whole_logprobs(self.options.top_logprobs, num_answers * longest, field)


def engine_request(
    served: ServedModel, tokens: list[int], options: GenerationOptions, field: str, prompt_group: int = 0
) -> EngineRequest:
    """What the engine is asked for, with the model's defaults. Raises typed errors that name `field`."""
    defaults = served.manifest.defaults
    max_tokens = defaults.max_tokens if options.max_tokens is None else options.max_tokens
    check_biased_tokens(options.logit_bias, served.encoder.tokenizer.vocabulary_size)

    def wanted(asked: Number | None, default: Number) -> Number:
        return default if asked is None else asked

    return EngineRequest(
        prompt_tokens=tokens,
        max_tokens=tokens_to_make(len(tokens), max_tokens, served.context_length, field),
        temperature=wanted(options.temperature, defaults.temperature),
        top_p=wanted(options.top_p, defaults.top_p),
        top_k=wanted(options.top_k, defaults.top_k),
        seed=options.seed,
        stop=options.stop,
        exact=options.exact,
        min_p=wanted(options.min_p, defaults.min_p),
        repetition_penalty=wanted(options.repetition_penalty, defaults.repetition_penalty),
        presence_penalty=wanted(options.presence_penalty, defaults.presence_penalty),
        frequency_penalty=wanted(options.frequency_penalty, defaults.frequency_penalty),
        logit_bias=options.logit_bias,
        ignore_eos=options.ignore_eos,
        top_logprobs=options.top_logprobs,
        prompt_group=prompt_group,
    )
