"""What is read from standard input."""

import io
import sys
from collections.abc import Callable
from typing import TypeVar

from tidemill.errors import FieldInvalidError

Text = TypeVar("Text", bound=str | None)


def read_text(read: Callable[[], Text]) -> Text:
    """What `read` reads. Raises FieldInvalidError when it is no text."""
    if isinstance(sys.stdin, io.TextIOWrapper) and sys.stdin.errors != "strict":
        sys.stdin.reconfigure(errors="strict")  # the C locale would let any byte pass, for the server to refuse
    try:
        return read()
    except UnicodeDecodeError as error:
        raise FieldInvalidError(
            f"Standard input is not {error.encoding.upper()} text: {error.reason} (byte {error.start}).", field="input"
        ) from None
