"""Text to tokens and back. Nothing that a user writes becomes a control token."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from tidemill_models.chat import MAX_TEXT_BYTES, ChatPart, num_utf8_bytes
from tidemill_models.control_tokens import WHITE_SPACE, ControlToken, ControlTokens, is_control_token
from tidemill_models.errors import InvalidTextError, PromptTooLargeError, TokenizerError
from tidemill_models.text_stream import TextStream, piece_of_each_token
from tidemill_models.token_pieces import TokenPieces

_MAX_CUT_ROUNDS = 8


class Tokenizer:
    """A tokenizer in Hugging Face's `tokenizers` format (tokenizer.json), as a model is served with it.

    It never changes after it was made, so several threads may use it at once. `encode` of a long text lets other
    threads run; a caller on an event loop calls it in a thread.

    How control tokens are kept out of what users write: the added tokens that steer the model (those marked special,
    and those that look like markup) are only looked for in a template's own text. Everything between two of them,
    the template's plain text and the users' contents together, is encoded with the search for them switched off, as
    Hugging Face would encode that stretch. A content that says `<|end|>` becomes the tokens of these seven characters.
    """

    def __init__(self, json_text: str, *, path: str = "tokenizer.json", max_text_bytes: int = MAX_TEXT_BYTES) -> None:
        """Raises TokenizerError, which names `path`."""
        self._max_text_bytes = max_text_bytes
        try:
            spec = json.loads(json_text)
            self._first = _inert(spec, json_text)
            self._following = _inert(_without_first_prefix(spec)) if _prefixes_first(spec) else self._first
            self._read_tokens(spec)
        except TokenizerError as error:
            raise TokenizerError(error.sentence, path=path, key=error.key) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise TokenizerError(f"is not a tokenizer: {str(error)[:200]}", path=path) from error

    @classmethod
    def from_file(cls, path: Path, *, max_text_bytes: int = MAX_TEXT_BYTES) -> "Tokenizer":
        """Read tokenizer.json. Raises TokenizerError."""
        try:
            return cls(path.read_text(encoding="utf-8"), path=str(path), max_text_bytes=max_text_bytes)
        except (OSError, UnicodeDecodeError) as error:
            raise TokenizerError(f"cannot be read: {error}", path=str(path)) from error

    @property
    def vocabulary_size(self) -> int:
        """The largest token id + 1."""
        return len(self.pieces.pieces)

    def token_text(self, token_id: int) -> str | None:
        """The token as the tokenizer writes it, such as `<|end|>`; None for an id that it does not have."""
        return self._first.id_to_token(token_id) if 0 <= token_id < self.vocabulary_size else None

    def token_bytes(self, token_id: int) -> bytes:
        """What stands for the token where it is shown by itself: its part of a text, or a control token's name.

        Empty for an id that it does not have.
        """
        if not 0 <= token_id < self.vocabulary_size:
            return b""
        return self.pieces.pieces[token_id] or (self.token_text(token_id) or "").encode()

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, none of them a control token and nothing put before or behind.

        Raises PromptTooLargeError above `max_text_bytes`, and InvalidTextError.
        """
        self._check_size([text])
        return self._encode_stretch(text, is_first=True)

    def encode_chat(self, parts: Sequence[ChatPart]) -> list[int]:
        """The tokens of a rendered chat. Raises PromptTooLargeError and InvalidTextError."""
        self._check_size(part.text for part in parts)
        token_ids: list[int] = []
        stretch: list[str] = []
        previous: ControlToken | None = None
        for token in self._split(parts):
            if isinstance(token, str):
                stretch.append(token)
                continue
            token_ids += self._encode_between(previous, "".join(stretch), token)
            token_ids.append(token.token_id)
            stretch.clear()
            previous = token
        return token_ids + self._encode_between(previous, "".join(stretch), None)

    def text_stream(self, prompt_tokens: Sequence[int] = ()) -> TextStream:
        """A stream for the answer to a prompt; see `TokenPieces`."""
        return self.pieces.text_stream(prompt_tokens)

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of all `token_ids` as one text; tokens that are marked special stand for nothing."""
        stream = self.text_stream()
        return stream.push(token_ids) + stream.finish()

    def _read_tokens(self, spec: dict[str, Any]) -> None:
        added_tokens: list[dict[str, Any]] = spec["added_tokens"]
        for added in added_tokens:
            if self._first.token_to_id(added["content"]) != added["id"]:
                sentence = f"gives the token {added['content'][:64]!r} another id than {added['id']}"
                raise TokenizerError(sentence, key="added_tokens")
        self._control = ControlTokens(added_tokens)
        self._forbidden = self._control.token_ids - _unknown_token_ids(spec, self._first)
        pieces, strips_leading_space = piece_of_each_token(self._first.get_vocab(), spec["decoder"])
        for added in added_tokens:
            pieces[added["id"]] = b"" if added["special"] else added["content"].encode()
        self.pieces = TokenPieces(pieces, strips_leading_space, self._control.token_ids)

    def _check_size(self, texts: Iterable[str]) -> None:
        num_bytes = 0
        for text in texts:
            num_bytes += num_utf8_bytes(text)
            if num_bytes > self._max_text_bytes:  # at once: a template may repeat a long content very often
                raise PromptTooLargeError(num_bytes, self._max_text_bytes)

    def _split(self, parts: Sequence[ChatPart]) -> Iterable[str | ControlToken]:
        for part in parts:
            if part.from_template:
                yield from self._control.split(part.text)
            else:
                yield part.text

    def _encode_between(self, left: ControlToken | None, text: str, right: ControlToken | None) -> list[int]:
        if left is not None and left.strips_right:
            text = text.lstrip(WHITE_SPACE)
        if right is not None and right.strips_left:
            text = text.rstrip(WHITE_SPACE)
        return self._encode_stretch(text, is_first=left is None) if text else []

    def _encode_stretch(self, text: str, *, is_first: bool) -> list[int]:
        """Encode, and cut the text inside of any control token that its plain vocabulary still gave.

        Some vocabularies (Unigram's) hold a control token as an ordinary piece.
        """
        stretches = [text]
        for _ in range(_MAX_CUT_ROUNDS):
            encoder = self._first if is_first else self._following
            encodings = encoder.encode_batch(stretches, add_special_tokens=False)  # lets other threads run
            token_ids = [token_id for encoding in encodings for token_id in encoding.ids]
            if self._forbidden.isdisjoint(token_ids):
                return token_ids
            stretches = [
                piece
                for stretch, encoding in zip(stretches, encodings, strict=True)
                for piece in _cut(stretch, encoding, self._forbidden)
            ]
        raise InvalidTextError("the text cannot be tokenized without forming a control token")


def _inert(spec: dict[str, Any], json_text: str | None = None) -> tokenizers.Tokenizer:
    """The tokenizer that takes control tokens for text, cuts nothing off, fills nothing up and has no chance in it.

    `json_text` is what `spec` was read from: it is taken as it stands where it is such a one, since writing it anew
    takes as long as reading it.
    """
    added_tokens = [added | {"special": is_control_token(added)} for added in spec["added_tokens"]]
    model = {key: value for key, value in spec["model"].items() if key != "dropout" or value is None}
    changed = spec | {"added_tokens": added_tokens, "model": model, "truncation": None, "padding": None}
    text = json_text if changed == spec else None
    try:
        tokenizer = tokenizers.Tokenizer.from_str(text or json.dumps(changed, ensure_ascii=False))
    except Exception as error:  # the library raises Exception itself
        raise TokenizerError(f"is not a tokenizer: {str(error)[:200]}") from error
    tokenizer.encode_special_tokens = True
    return tokenizer


def _pre_tokenizers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    pre_tokenizer = spec["pre_tokenizer"]
    if pre_tokenizer is None:
        return []
    return list(pre_tokenizer["pretokenizers"]) if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def _prefixes_first(spec: dict[str, Any]) -> bool:
    """Whether only a text's very first stretch gets SentencePiece's leading mark."""
    return any(step.get("prepend_scheme") == "first" for step in _pre_tokenizers(spec))


def _without_first_prefix(spec: dict[str, Any]) -> dict[str, Any]:
    steps = [
        step | {"prepend_scheme": "never"} if step.get("prepend_scheme") == "first" else step
        for step in _pre_tokenizers(spec)
    ]
    return spec | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}


def _unknown_token_ids(spec: dict[str, Any], tokenizer: tokenizers.Tokenizer) -> frozenset[int]:
    """The id that stands for what the vocabulary does not have; a text may well lead to it."""
    model = spec["model"]
    unknown = model.get("unk_id")
    if unknown is None and isinstance(model.get("unk_token"), str):
        unknown = tokenizer.token_to_id(model["unk_token"])
    return frozenset() if unknown is None else frozenset({unknown})


def _cut(text: str, encoding: tokenizers.Encoding, forbidden: frozenset[int]) -> list[str]:
    """`text` in pieces, cut behind the first character of each forbidden token."""
    cuts = [0]
    for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        if token_id not in forbidden:
            continue
        if end - start < 2:
            raise InvalidTextError("the text cannot be tokenized without forming a control token")
        cuts.append(start + 1)
    return [text[start:end] for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True)]
