"""What is kept of a tokenizer, and what becomes of it when it is damaged."""

import pytest

from tidemill_models.token_pieces import TokenPieces
from tidemill_models.tokenizer import Tokenizer


def test_kept_pieces_make_the_texts_that_the_tokenizer_makes(any_kind) -> None:
    tokenizer = Tokenizer(any_kind.to_str())
    kept = TokenPieces.from_bytes(tokenizer.pieces.to_bytes())
    assert kept == tokenizer.pieces
    token_ids = tokenizer.encode("The tide mill, naïve café: 😀")
    for prompt in ((), (token_ids[0],), sorted(kept.control_token_ids)[:1]):
        streams = kept.text_stream(prompt), tokenizer.text_stream(prompt)
        of_kept, of_tokenizer = (stream.push(token_ids) + stream.finish() for stream in streams)
        assert of_kept == of_tokenizer != ""


@pytest.mark.parametrize("keep", [0, 10, 32, 40, -1])
def test_pieces_that_were_cut_are_refused(any_kind, keep: int) -> None:
    kept = Tokenizer(any_kind.to_str()).pieces.to_bytes()
    with pytest.raises(ValueError, match="digest"):
        TokenPieces.from_bytes(kept[:keep])


def test_any_changed_byte_is_noticed() -> None:
    kept = TokenPieces([b"", b"tide", b" mill"], True, frozenset({0})).to_bytes()
    for position in range(len(kept)):
        damaged = bytearray(kept)
        damaged[position] ^= 1
        with pytest.raises(ValueError, match="digest"):
            TokenPieces.from_bytes(bytes(damaged))
