"""Between the public messages and the domain: names, times, requests."""

import re
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tidemill.v1 import inference_pb2
from tidemill_models.manifest import NAME
from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.domain.generation import (
    DEFAULT_WAIT_SECONDS,
    ChatInput,
    GenerationOptions,
    PromptInput,
    WaitPolicy,
)
from tidemill_services.store.requests import MAX_REQUEST_ID_LENGTH

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
    """How a generation runs; what is absent stays None."""
    sampling = message.sampling
    return GenerationOptions(
        max_tokens=message.max_tokens if message.HasField("max_tokens") else None,
        temperature=sampling.temperature if sampling.HasField("temperature") else None,
        top_p=sampling.top_p if sampling.HasField("top_p") else None,
        top_k=sampling.top_k if sampling.HasField("top_k") else None,
        seed=sampling.seed if sampling.HasField("seed") else None,
        stop=tuple(message.stop),
        wait=_wait(message.wait),
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


def milliseconds(message: Duration) -> int:
    """A duration as whole milliseconds, rounded down."""
    return message.seconds * 1000 + message.nanos // 1_000_000


def duration(seconds: float | None) -> Duration | None:
    """Seconds as a message; None stays None."""
    if seconds is None:
        return None
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message
