"""Between the public messages and the domain: names, times, requests."""

import re
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tidemill.v1 import inference_pb2, usage_pb2
from tidemill_models.manifest_tables import NAME
from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.domain.generation import (
    DEFAULT_WAIT_SECONDS,
    ChatInput,
    GenerationOptions,
    PromptInput,
    Usage,
    WaitPolicy,
)
from tidemill_services.store.requests import MAX_REQUEST_ID_LENGTH

_MAX_REMEMBERED = 256  # options
_MAX_REMEMBERED_BYTES = 256  # of one message
_ACCOUNT = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_KEY = re.compile(r"accounts/([A-Za-z0-9_-]{1,64})/keys/([0-9a-f]{1,64})", re.ASCII)
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def model_id(name: str, field: str = "model") -> str:
    """The bare name of `models/{model}` or of a bare name; an empty one stays empty."""
    bare = name.removeprefix("models/")
    if name and not NAME.fullmatch(bare):
        raise FieldInvalidError(f"{field} must be models/{{model}} with {NAME.pattern}.", field=field)
    return bare


def session_id(name: str, field: str = "name") -> str:
    """The bare id of `sessions/{session}`."""
    bare = name.removeprefix("sessions/")
    if not name.startswith("sessions/") or not _SESSION.fullmatch(bare):
        raise FieldInvalidError(f"{field} must be sessions/{{session}}.", field=field)
    return bare


def account_id(name: str, field: str = "name") -> str:
    """The bare id of `accounts/{account}`; an empty one stays empty."""
    bare = name.removeprefix("accounts/")
    if name and (not name.startswith("accounts/") or not _ACCOUNT.fullmatch(bare)):
        raise FieldInvalidError(f"{field} must be accounts/{{account}}.", field=field)
    return bare


def key_ids(name: str, field: str = "name") -> tuple[str, str]:
    """The ids of account and key of `accounts/{account}/keys/{key}`."""
    found = _KEY.fullmatch(name)
    if found is None:
        raise FieldInvalidError(f"{field} must be accounts/{{account}}/keys/{{key}}.", field=field)
    return found[1], found[2]


def milliseconds(message: Timestamp | Duration) -> int:
    """A time as milliseconds since 1970, or a duration in milliseconds, rounded down."""
    return message.seconds * 1000 + message.nanos // 1_000_000


def check_request_id(request_id: str) -> None:
    """Raise FieldInvalidError unless this can name a request; an empty one names none."""
    if len(request_id) > MAX_REQUEST_ID_LENGTH or not request_id.isprintable():
        raise FieldInvalidError(
            f"request_id must be at most {MAX_REQUEST_ID_LENGTH} printable characters.", field="request_id"
        )


def prompt(message: inference_pb2.Input) -> PromptInput | ChatInput:
    """What to go on from; its limits are the model's and checked when it is encoded."""
    if message.WhichOneof("input") != "chat":
        return PromptInput(message.prompt)
    chat = message.chat
    return ChatInput(
        messages=tuple((each.role, each.content) for each in chat.messages),
        add_generation_prompt=chat.add_generation_prompt if chat.HasField("add_generation_prompt") else True,
        template=chat.template,
    )


def options(message: inference_pb2.GenerationOptions) -> GenerationOptions:
    """How a generation runs; what is absent stays None.

    A program sends the same options with each of its calls, so small ones are remembered.
    """
    body = message.SerializeToString()
    return _options_of(body) if len(body) <= _MAX_REMEMBERED_BYTES else _options(message)


@lru_cache(_MAX_REMEMBERED)
def _options_of(body: bytes) -> GenerationOptions:
    return _options(inference_pb2.GenerationOptions.FromString(body))


def _options(message: inference_pb2.GenerationOptions) -> GenerationOptions:
    sampling = message.sampling
    return GenerationOptions(
        max_tokens=message.max_tokens if message.HasField("max_tokens") else None,
        temperature=sampling.temperature if sampling.HasField("temperature") else None,
        top_p=sampling.top_p if sampling.HasField("top_p") else None,
        top_k=sampling.top_k if sampling.HasField("top_k") else None,
        seed=sampling.seed if sampling.HasField("seed") else None,
        stop=tuple(message.stop),
        wait=_wait(message.wait),
        exact=message.exact,
        min_p=sampling.min_p if sampling.HasField("min_p") else None,
        repetition_penalty=sampling.repetition_penalty if sampling.HasField("repetition_penalty") else None,
        presence_penalty=sampling.presence_penalty if sampling.HasField("presence_penalty") else None,
        frequency_penalty=sampling.frequency_penalty if sampling.HasField("frequency_penalty") else None,
        logit_bias=tuple(sorted(sampling.logit_bias.items())) if sampling.logit_bias else (),
        ignore_eos=message.ignore_eos,
        top_logprobs=message.top_logprobs if message.HasField("top_logprobs") else None,
    )


def _wait(message: inference_pb2.Wait) -> WaitPolicy:
    if not message.HasField("max_wait"):
        return WaitPolicy(message.fail_fast, DEFAULT_WAIT_SECONDS)
    return WaitPolicy(message.fail_fast, message.max_wait.seconds + message.max_wait.nanos / 1e9)


def timestamp(ms: int | None) -> Timestamp | None:
    """Milliseconds since 1970 as a message; None stays None."""
    if ms is None:
        return None
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def duration(seconds: float | None) -> Duration | None:
    """Seconds as a message; None stays None."""
    if seconds is None:
        return None
    whole, microseconds = divmod(round(seconds * 1e6), 1_000_000)
    return Duration(seconds=whole, nanos=microseconds * 1000)


def usage(used: Usage) -> usage_pb2.Usage:
    """What a generation used, as a message."""
    return usage_pb2.Usage(
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        queue_duration=duration(used.queue_seconds),
        time_to_first_token=duration(used.time_to_first_token_seconds),
        total_duration=duration(used.total_seconds),
        cost_microcredits=used.cost_microcredits,
        cached_prompt_tokens=used.cached_prompt_tokens,
    )
