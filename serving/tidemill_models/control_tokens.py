"""Finds the tokens that steer a model (begin, end, turn markers) in a template's text, and nowhere else."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# What the `tokenizers` library takes for white space beside a token with `lstrip` or `rstrip`.
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"

# Some tokenizers (DeepSeek's turn markers, Qwen's <tool_call>) do not mark their markers as special. What looks like
# markup is a marker, too. Other added tokens, such as runs of spaces, are text.
_MARKUP = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]")


@dataclass(frozen=True, slots=True)
class ControlToken:
    """A token that only a template may write."""

    token_id: int
    text: str
    strips_left: bool  # takes the white space before it
    strips_right: bool


class ControlTokens:
    """The control tokens of one tokenizer."""

    def __init__(self, added_tokens: Iterable[Mapping[str, Any]]) -> None:
        tokens = [
            ControlToken(added["id"], added["content"], added["lstrip"], added["rstrip"])
            for added in added_tokens
            if added["content"].strip() and is_control_token(added)  # white space alone steers nothing
        ]
        self._by_text = {token.text: token for token in tokens}
        self.token_ids = frozenset(token.token_id for token in tokens)
        longest_first = sorted(self._by_text, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if tokens else None

    def split(self, text: str) -> Iterator[str | ControlToken]:
        """The plain stretches and the control tokens of a template's text, in order. Longer tokens win."""
        start = 0
        for match in self._pattern.finditer(text) if self._pattern else ():
            yield text[start : match.start()]
            yield self._by_text[match[0]]
            start = match.end()
        yield text[start:]


def is_control_token(added_token: Mapping[str, Any]) -> bool:
    """Whether an entry of tokenizer.json's `added_tokens` steers the model."""
    return bool(added_token["special"] or _MARKUP.fullmatch(added_token["content"]))
