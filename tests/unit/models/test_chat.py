import pytest

from tidemill_models.chat import Message, check_messages
from tidemill_models.errors import (
    EmptyPromptError,
    InvalidMessageError,
    InvalidTextError,
    PromptTooLargeError,
    TooManyMessagesError,
    UnknownRoleError,
)

ROLES = ("system", "user", "assistant")


def test_a_chat_within_its_limits_is_taken():
    check_messages([Message("system", ""), Message("user", "Hello")], ROLES)


def test_an_empty_chat_is_refused():
    with pytest.raises(EmptyPromptError):
        check_messages([], ROLES)


def test_an_unknown_role_is_named_with_those_that_are_known():
    with pytest.raises(UnknownRoleError, match=r"messages\[1\]: the role 'tool' is unknown; .* system, user, assis"):
        check_messages([Message("user", "a"), Message("tool", "b")], ROLES)


def test_limits_are_named_with_what_was_sent():
    messages = [Message("user", "é")] * 3
    with pytest.raises(TooManyMessagesError, match="3 messages; the limit is 2"):
        check_messages(messages, ROLES, max_messages=2)
    with pytest.raises(PromptTooLargeError, match="6 bytes of UTF-8; the limit is 5"):
        check_messages(messages, ROLES, max_text_bytes=5)


def test_a_content_that_is_no_text_is_refused():
    with pytest.raises(InvalidMessageError, match=r"messages\[0\]: the content must be text"):
        check_messages([Message("user", ["part"])], ROLES)  # type: ignore[arg-type]
    with pytest.raises(InvalidTextError, match="surrogate"):
        check_messages([Message("user", "\ud800")], ROLES)
