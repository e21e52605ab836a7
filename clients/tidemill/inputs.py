"""What generations are asked: prompts and chats, checked and made ready for the wire.

A field at fault is named by its path in the request: `input...` for one input, `inputs[3]...` in a list.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeGuard

from tidemill.errors import FieldInvalidError
from tidemill.steps import build
from tidemill.v1 import inference_pb2

ChatMessages: TypeAlias = Sequence[Mapping[str, str]]
"""A conversation: mappings with `role` and `content`."""
LARGEST_INPUT_BYTES = 1 << 20
"""Bytes of one prompt, or of all messages of one chat, in UTF-8."""
_MESSAGE_KEYS = {"role", "content"}


def prompt_input(prompt: str, where: str = "input") -> inference_pb2.Input:
    """A prompt for the wire. Raises FieldInvalidError."""
    field = f"{where}.prompt"
    _check_text(prompt, "The prompt", field)
    _check_size(_num_bytes(prompt), "The prompt has", field)
    return build(inference_pb2.Input, f"{where}.", prompt=prompt)


def chat_input(
    messages: ChatMessages, *, add_generation_prompt: bool = True, template: str | None = None, where: str = "input"
) -> inference_pb2.Input:
    """A chat for the wire. Raises FieldInvalidError naming the message that is not one."""
    field = f"{where}.chat.messages"
    if not is_list(messages):
        raise FieldInvalidError(
            f"messages is {_kind(messages)}; it must be a list of mappings with the keys role and content.", field=field
        )
    built = [_message(message, f"messages[{index}]", f"{field}[{index}]") for index, message in enumerate(messages)]
    _check_size(sum(_num_bytes(one.content) for one in built), "The messages have", field)
    chat = build(
        inference_pb2.Chat,
        f"{where}.chat.",
        messages=built,
        add_generation_prompt=add_generation_prompt,
        template=template or None,
    )
    return inference_pb2.Input(chat=chat)


def is_list(found: object) -> TypeGuard[Sequence[object]]:
    """Whether it is a sequence of things, which a text is not."""
    return isinstance(found, Sequence) and not isinstance(found, str | bytes | bytearray)


def _message(message: object, name: str, field: str) -> inference_pb2.Message:
    if not isinstance(message, Mapping) or not set(message) >= _MESSAGE_KEYS:
        raise FieldInvalidError(f"{name} must be a mapping with the keys role and content.", field=field)
    extra = sorted(repr(key) for key in set(message) - _MESSAGE_KEYS)
    if extra:
        raise FieldInvalidError(f"{name} has {', '.join(extra)} besides role and content: leave it out.", field=field)
    for key in ("role", "content"):
        _check_text(message[key], f"{name}.{key}", f"{field}.{key}")
    return build(inference_pb2.Message, f"{field}.", role=message["role"], content=message["content"])


def _check_text(text: object, subject: str, field: str) -> None:
    if not isinstance(text, str):
        raise FieldInvalidError(f"{subject} is {_kind(text)}; it must be a str.", field=field)


def _check_size(num_bytes: int, subject: str, field: str) -> None:
    if num_bytes > LARGEST_INPUT_BYTES:
        raise FieldInvalidError(
            f"{subject} {num_bytes} bytes in UTF-8; there may be {LARGEST_INPUT_BYTES} (1 MiB).", field=field
        )


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))  # what is no Unicode is refused when the message is built


def _kind(found: object) -> str:
    return "None" if found is None else f"of type {type(found).__name__}"
