"""From the bodies of OpenAI's API to what the domain runs.

Nothing is silently ignored: a field that asks for what the engine does not have is refused by its name, unless its
value is the one that asks for nothing; a field that OpenAI does not know is refused as OpenAI's own server does.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from starlette.datastructures import Headers

from tidemill_models.manifest_tables import NAME
from tidemill_services.domain.errors import FieldInvalidError, ModelNotFoundError
from tidemill_services.domain.generation import (
    MAX_BATCH_INPUTS,
    MAX_WAIT_SECONDS,
    ChatInput,
    GenerationOptions,
    PromptInput,
    WaitPolicy,
)
from tidemill_services.domain.sampling import (
    MAX_BIAS,
    MAX_BIASED_TOKENS,
    MAX_PENALTY,
    MAX_TEMPERATURE,
    MAX_TOP_LOGPROBS,
    REPETITION_PENALTIES,
)
from tidemill_services.gateway.json_body import MAX_BODY_BYTES, Fields, as_text
from tidemill_services.gateway.openai_messages import messages_of

WAIT_HEADER = "x-tidemill-wait"
MAX_CHOICES_OF_A_PROMPT = 128
MAX_INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What is asked for: `num_choices` answers to each prompt."""

    model: str  # empty: the key's default
    prompts: tuple[tuple[str, PromptInput | ChatInput], ...]  # each with its path in the request
    num_choices: int
    options: GenerationOptions
    stream: bool
    include_usage: bool  # at the end of a stream
    echo: bool = False  # each answer begins with its prompt


def chat_request(body: Mapping[str, object], headers: Headers) -> CompletionRequest:
    """Read a request to `/v1/chat/completions`. Raises FieldInvalidError, ModelNotFoundError."""
    fields = Fields(body)
    messages = messages_of(fields.take("messages"))
    for name, neutral in _UNSERVED_IN_CHATS.items():
        fields.unserved(name, *neutral)
    has_logprobs = fields.flag("logprobs")
    top_logprobs = fields.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
    if top_logprobs and not has_logprobs:
        fields.refuse("top_logprobs", "goes with logprobs = true only")
    wanted = (top_logprobs or 0) if has_logprobs else None
    chat = ChatInput(messages, add_generation_prompt=fields.flag("add_generation_prompt", absent=True))
    return _request(fields, headers, (("messages", chat),), top_logprobs=wanted)


def text_request(body: Mapping[str, object], headers: Headers) -> CompletionRequest:
    """Read a request to `/v1/completions`. Raises FieldInvalidError, ModelNotFoundError."""
    fields = Fields(body)
    prompts = _prompts(fields.take("prompt"))
    for name, neutral in _UNSERVED_IN_TEXTS.items():
        fields.unserved(name, *neutral)
    top_logprobs = fields.integer("logprobs", 0, MAX_TOP_LOGPROBS)
    echo = fields.flag("echo")
    if echo and top_logprobs is not None:
        fields.refuse("echo", "does not go with logprobs: those of a prompt are not computed")
    request = _request(fields, headers, prompts, top_logprobs=top_logprobs)
    num_echoed = request.num_choices * sum(len(prompt.prompt.encode()) for _, prompt in prompts)
    if echo and num_echoed > MAX_BODY_BYTES:
        fields.refuse("echo", f"would repeat {num_echoed:,} bytes of prompts; it may be {MAX_BODY_BYTES:,}")
    return replace(request, echo=echo)


def checked_model(name: str) -> str:
    """A name that a model can have. Raises ModelNotFoundError for one that none can have."""
    if not NAME.fullmatch(name):
        raise ModelNotFoundError(f"No model {name[:100]!r} is registered: /v1/models lists what is.", field="model")
    return name


# Each with the values that ask for nothing, besides null.
_UNSERVED_IN_TEXTS: Mapping[str, tuple[object, ...]] = {
    "best_of": (1,),
    "suffix": ("",),
}
_UNSERVED_IN_CHATS: Mapping[str, tuple[object, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "metadata": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": ("in_memory",),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": ("medium",),
    "web_search_options": (),
}
# What programs written for vLLM send with its own defaults.
_UNSERVED_OF_VLLM: Mapping[str, tuple[object, ...]] = {
    "continue_final_message": (False,),
    "length_penalty": (1.0, 1),
    "min_tokens": (0,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "use_beam_search": (False,),
}
# Who the caller's own user is, and hints to a cache: they change no answer.
_LABELS = ("user", "safety_identifier", "prompt_cache_key")


def _request(
    fields: Fields,
    headers: Headers,
    prompts: tuple[tuple[str, PromptInput | ChatInput], ...],
    *,
    top_logprobs: int | None,
) -> CompletionRequest:
    for name in _LABELS:
        fields.text(name)
    for name, neutral in _UNSERVED_OF_VLLM.items():
        fields.unserved(name, *neutral)
    model = fields.text("model")
    stream = fields.flag("stream")
    num_choices = fields.integer("n", 1, MAX_CHOICES_OF_A_PROMPT)
    request = CompletionRequest(
        model=checked_model(model) if model else "",
        prompts=prompts,
        num_choices=1 if num_choices is None else num_choices,
        options=replace(_options(fields, headers), top_logprobs=top_logprobs),
        stream=stream,
        include_usage=_includes_usage(fields, stream=stream),
    )
    fields.refuse_rest()
    if len(request.prompts) * request.num_choices > MAX_BATCH_INPUTS:
        raise FieldInvalidError(
            f"{len(request.prompts)} prompts with n = {request.num_choices} are more than {MAX_BATCH_INPUTS} answers.",
            field="n",
        )
    return request


def _options(fields: Fields, headers: Headers) -> GenerationOptions:
    """How the answers are made; what is absent is the model's default."""
    max_tokens = fields.integer("max_tokens", 1, MAX_INT32)
    max_completion_tokens = fields.integer("max_completion_tokens", 1, MAX_INT32)
    if None not in (max_tokens, max_completion_tokens):
        fields.refuse("max_tokens", "is the older name of max_completion_tokens: send one of them")
    return GenerationOptions(
        max_tokens=max_completion_tokens if max_tokens is None else max_tokens,
        temperature=fields.number("temperature", 0, MAX_TEMPERATURE),
        top_p=fields.number("top_p", 0, 1),
        top_k=_top_k(fields),
        seed=fields.integer("seed", -(2**63), 2**63 - 1),
        stop=_stop(fields.take("stop")),
        exact=fields.flag("exact"),  # ours
        wait=_wait(headers.get(WAIT_HEADER, "")),
        min_p=fields.number("min_p", 0, 1),  # as vLLM has it, and the next
        repetition_penalty=fields.number("repetition_penalty", *REPETITION_PENALTIES),
        presence_penalty=fields.number("presence_penalty", -MAX_PENALTY, MAX_PENALTY),
        frequency_penalty=fields.number("frequency_penalty", -MAX_PENALTY, MAX_PENALTY),
        logit_bias=_logit_bias(fields),
        ignore_eos=fields.flag("ignore_eos"),
    )


def _top_k(fields: Fields) -> int | None:
    """Not OpenAI's, and what many send; all tokens are 0 for some of them and -1 for others."""
    wanted = fields.integer("top_k", -1, MAX_INT32)
    return wanted if wanted is None else max(wanted, 0)


def _logit_bias(fields: Fields) -> tuple[tuple[int, float], ...]:
    value = fields.take("logit_bias")
    if value is None:
        return ()
    biases = Fields(value, "logit_bias")
    if len(value) > MAX_BIASED_TOKENS:
        fields.refuse("logit_bias", f"names {len(value)} tokens; at most {MAX_BIASED_TOKENS} may be")
    found: dict[int, float] = {}
    for token in value:
        if not re.fullmatch(r"\d{1,10}", token, re.ASCII) or int(token) > MAX_INT32:
            biases.refuse(token, "is no token id: names must be whole numbers")
        if int(token) in found:
            biases.refuse(token, "names a token twice")
        found[int(token)] = biases.number(token, -MAX_BIAS, MAX_BIAS) or 0.0
    return tuple(sorted(found.items()))


def _stop(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list):
        return tuple(as_text(each, f"stop[{index}]") for index, each in enumerate(value))
    return (as_text(value, "stop"),)


def _prompts(value: object) -> tuple[tuple[str, PromptInput], ...]:
    if not isinstance(value, list):
        return (("prompt", PromptInput(as_text(value, "prompt"))),)
    if not 1 <= len(value) <= MAX_BATCH_INPUTS:
        raise FieldInvalidError(f"prompt has {len(value)} texts; it may have 1 to {MAX_BATCH_INPUTS}.", field="prompt")
    if not isinstance(value[0], str):
        raise FieldInvalidError("prompt[0] must be a string: prompts are texts here, not tokens.", field="prompt[0]")
    paths = [f"prompt[{index}]" for index in range(len(value))]
    return tuple((path, PromptInput(as_text(each, path))) for path, each in zip(paths, value, strict=True))


def _includes_usage(fields: Fields, *, stream: bool) -> bool:
    value = fields.take("stream_options")
    if value is None:
        return False
    if not stream:
        fields.refuse("stream_options", "goes with stream = true only")
    options = Fields(value, "stream_options")
    options.unserved("include_obfuscation", False)
    include_usage = options.flag("include_usage")
    options.refuse_rest()
    return include_usage


def _wait(seconds: str) -> WaitPolicy:
    """Whoever does not ask to wait is told at once that a model is cold; a place in a running one is waited for."""
    if not seconds:
        return WaitPolicy(fail_cold=True)
    if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?", seconds, re.ASCII) or float(seconds) > MAX_WAIT_SECONDS:
        raise FieldInvalidError(
            f"The header {WAIT_HEADER} must be seconds, 0 to {MAX_WAIT_SECONDS:g}.", field=WAIT_HEADER
        )
    return WaitPolicy(max_wait_seconds=float(seconds)) if float(seconds) else WaitPolicy(fail_cold=True)
