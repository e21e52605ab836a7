"""A chat: the messages that a caller sends, and the same rendered, with what users wrote kept apart."""

from collections.abc import Sequence
from dataclasses import dataclass

from tidemill_models.errors import (
    EmptyPromptError,
    InvalidMessageError,
    InvalidTextError,
    PromptTooLargeError,
    TooManyMessagesError,
    UnknownRoleError,
)

MAX_TEXT_BYTES = 1 << 20  # tokenizing this much takes half a second to two
MAX_MESSAGES = 1000


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ChatPart:
    """A stretch of a rendered chat. Only the template's own text may hold control tokens."""

    text: str
    from_template: bool


def check_messages(
    messages: Sequence[Message],
    roles: tuple[str, ...],
    *,
    max_messages: int = MAX_MESSAGES,
    max_text_bytes: int = MAX_TEXT_BYTES,
) -> None:
    """Refuse a chat that cannot be rendered: empty, too many messages, an unknown role, no text, too many bytes."""
    if not messages:
        raise EmptyPromptError
    if len(messages) > max_messages:
        raise TooManyMessagesError(len(messages), max_messages)
    num_bytes = 0
    for index, message in enumerate(messages):
        if message.role not in roles:
            raise UnknownRoleError(index, message.role, roles)
        if not isinstance(message.content, str):
            raise InvalidMessageError(index, "the content must be text")
        num_bytes += num_utf8_bytes(message.content)
    if num_bytes > max_text_bytes:
        raise PromptTooLargeError(num_bytes, max_text_bytes)


def num_utf8_bytes(text: str) -> int:
    """How long `text` is as UTF-8. Raises InvalidTextError where it cannot be written so."""
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidTextError("the text holds a lone surrogate and cannot be written as UTF-8") from error
