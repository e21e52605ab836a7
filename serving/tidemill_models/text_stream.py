"""Turns tokens into text while they come, with complete characters only.

A tokenizer's decoder is resolved once into a table: the bytes that each token stands for. A stream is then a table
look-up per token and an incremental UTF-8 decoder, so a token costs the same however long the answer is, and a
character that is spread over several tokens comes out when its last byte is there.
"""

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tidemill_models.errors import TokenizerError

_MAX_VOCABULARY_SIZE = 1 << 22
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TextStream:
    """The text of one answer, token by token. Belongs to one sequence; not for several threads at once."""

    __slots__ = ("_decoder", "_is_between_characters", "_pieces", "_strips_space", "_texts")

    def __init__(
        self, pieces: Sequence[bytes], *, strips_leading_space: bool, texts: dict[int, str] | None = None
    ) -> None:
        """`texts` may be shared by all streams of these pieces: the text of tokens that are whole characters."""
        self._pieces = pieces
        self._strips_space = strips_leading_space
        self._texts = {} if texts is None else texts
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_between_characters = True

    def push_one(self, token_id: int) -> str:
        """The text that a token completes. What it was once is looked up."""
        if not self._is_between_characters or self._strips_space:
            return self.push((token_id,))
        text = self._texts.get(token_id)
        if text is None:
            text = self.push((token_id,))
            if self._is_between_characters:
                self._texts[token_id] = text
        return text

    def push(self, token_ids: Iterable[int]) -> str:
        """The text that `token_ids` complete. Ids outside the vocabulary stand for nothing.

        Bytes that cannot be UTF-8 come out as U+FFFD as soon as that is known.
        """
        pieces, num_pieces = self._pieces, len(self._pieces)
        content = b"".join([pieces[token_id] for token_id in token_ids if token_id < num_pieces])
        if self._strips_space and content:
            self._strips_space = False
            content = content.removeprefix(b" ")
        if self._is_between_characters:  # nearly always, and then the short way gives the same
            try:
                return content.decode()
            except UnicodeDecodeError:
                pass
        text = self._decoder.decode(content)
        self._is_between_characters = not self._decoder.getstate()[0]
        return text

    def finish(self) -> str:
        """What is left: nothing, or U+FFFD for a character whose last bytes never came."""
        return self._decoder.decode(b"", final=True)


def piece_of_each_token(vocabulary: Mapping[str, int], decoder: Mapping[str, Any] | None) -> tuple[list[bytes], bool]:
    """The bytes of each token by its id, and whether the decoder drops one space at the start of a text.

    `decoder` is the table of that name in tokenizer.json. Raises TokenizerError for a decoder that does not give
    each token bytes of its own.
    """
    steps = _flatten(decoder)
    size = max(vocabulary.values(), default=-1) + 1
    if size > _MAX_VOCABULARY_SIZE:
        raise TokenizerError(f"has the id {size - 1}; the limit is {_MAX_VOCABULARY_SIZE - 1}", key="model.vocab")
    pieces = [b""] * size
    for token, token_id in vocabulary.items():
        pieces[token_id] = _piece(token, steps)
    return pieces, any(_strips_space(step) for step in steps)


def _flatten(decoder: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if decoder is None:
        raise TokenizerError("has no decoder, so its tokens cannot be joined to a text", key="decoder")
    if decoder["type"] == "Sequence":
        return [step for part in decoder["decoders"] for step in _flatten(part)]
    _refuse_unknown(decoder)
    return [decoder]


def _refuse_unknown(step: Mapping[str, Any]) -> None:
    known = {
        "ByteLevel": True,
        "ByteFallback": True,
        "Fuse": True,
        "Metaspace": True,
        "Replace": "String" in step.get("pattern", ()),
        "Strip": step.get("content") == " " and step.get("start") in (0, 1) and step.get("stop") == 0,
    }
    if not known.get(step["type"]):
        sentence = f"its {step['type']} decoder, as it is set, does not give each token bytes of its own"
        raise TokenizerError(sentence, key="decoder")


def _strips_space(step: Mapping[str, Any]) -> bool:
    if step["type"] == "Metaspace":
        return bool(step.get("prepend_scheme", "always") != "never")
    return bool(step["type"] == "Strip" and step["start"] == 1)


def _piece(token: str, steps: Sequence[Mapping[str, Any]]) -> bytes:
    for step in steps:
        if step["type"] == "ByteLevel":
            return _byte_level(token)
        if step["type"] == "Replace":
            token = token.replace(step["pattern"]["String"], step["content"])
        elif step["type"] == "Metaspace":
            token = token.replace(step["replacement"], " ")
        elif step["type"] == "ByteFallback" and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes.fromhex(match[1])
    return token.encode()


def _byte_level(token: str) -> bytes:
    try:
        return token.translate(_BYTE_OF_CHARACTER).encode("latin-1")
    except UnicodeEncodeError:  # a token that was added as plain text
        return token.encode()


def _byte_level_alphabet() -> dict[int, int]:
    """The byte of each character that GPT-2 writes for one: itself where it is printable Latin-1, else U+0100 and up.

    The rest of Latin-1 stands for none: it becomes what Latin-1 does not have.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    bytes_of_others = {0x100 + i: byte for i, byte in enumerate(others)}
    return dict.fromkeys(others, 0xFFFD) | {byte: byte for byte in printable} | bytes_of_others


_BYTE_OF_CHARACTER = _byte_level_alphabet()
