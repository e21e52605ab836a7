import codecs

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders

from tidemill_models.errors import TokenizerError
from tidemill_models.text_stream import TextStream, piece_of_each_token
from tidemill_models.tokenizer import Tokenizer

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@relaxed
@given(text=plain_text, data=st.data())
def test_a_stream_gives_the_whole_text_in_complete_characters_however_it_is_cut(byte_level, text, data):
    tokenizer = Tokenizer(byte_level.to_str())
    token_ids = tokenizer.encode(text)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(token_ids)), max_size=8)))
    stream = tokenizer.text_stream()
    emitted = ""
    for start, end in zip([0, *cuts], [*cuts, len(token_ids)], strict=True):
        emitted += stream.push(token_ids[start:end])
        assert text.startswith(emitted)
    assert emitted == text
    assert stream.finish() == ""


@relaxed
@given(text=plain_text)
def test_a_stream_ends_with_what_hugging_face_decodes_at_once(any_kind, text):
    tokenizer = Tokenizer(any_kind.to_str())
    token_ids = tokenizer.encode(text)
    stream = tokenizer.text_stream()
    emitted = "".join(stream.push([token_id]) for token_id in token_ids) + stream.finish()
    assert emitted == any_kind.decode(token_ids, skip_special_tokens=True)


def test_a_character_comes_with_its_last_byte(sentencepiece_bpe):
    stream = Tokenizer(sentencepiece_bpe.to_str()).text_stream([5])
    ids = [sentencepiece_bpe.token_to_id(f"<0x{byte:02X}>") for byte in "é😀".encode()]
    assert [stream.push([token_id]) for token_id in ids] == ["", "é", "", "", "", "😀"]


def test_broken_bytes_come_out_as_replacement_characters_and_do_not_stop_the_stream(sentencepiece_bpe):
    byte = {value: sentencepiece_bpe.token_to_id(f"<0x{value:02X}>") for value in range(256)}
    stream = Tokenizer(sentencepiece_bpe.to_str()).text_stream([5])
    assert stream.push([byte[0xF0], byte[0x9F]]) == ""
    assert stream.push([byte[ord("a")]]) == "\ufffda"
    assert stream.push([byte[0x80]] * 3) == "\ufffd" * 3
    assert stream.push([byte[0xE2], byte[0x82]]) == ""
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""


pieces_of_bytes = st.lists(st.one_of(st.binary(max_size=5), st.text(max_size=3).map(str.encode)), max_size=30)


@settings(deadline=None)
@given(pieces=pieces_of_bytes)
def test_any_bytes_come_out_as_an_incremental_decoder_gives_them(pieces):
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    stream = TextStream(pieces, strips_leading_space=False)
    expected = [decoder.decode(piece) for piece in pieces]
    assert [stream.push([token_id]) for token_id in range(len(pieces))] == expected
    end = decoder.decode(b"", final=True)
    assert stream.finish() == end
    texts: dict[int, str] = {}
    for _ in range(2):  # the second finds what the first has looked up
        stream = TextStream(pieces, strips_leading_space=False, texts=texts)
        assert [stream.push_one(token_id) for token_id in range(len(pieces))] == expected
        assert stream.finish() == end


def test_special_tokens_and_unknown_ids_have_no_text(byte_level):
    tokenizer = Tokenizer(byte_level.to_str())
    tide = tokenizer.encode("tide")
    end = byte_level.token_to_id("<|end|>")
    assert tokenizer.text_stream().push([end, *tide, end, 10**6]) == "tide"


def test_the_first_space_is_kept_where_an_answer_goes_on_from_a_prompt(sentencepiece_bpe):
    tokenizer = Tokenizer(sentencepiece_bpe.to_str())
    mill = tokenizer.encode("mill")
    assert sentencepiece_bpe.id_to_token(mill[0]).startswith("▁")
    prompt = tokenizer.encode("The tide")
    assert tokenizer.text_stream(prompt).push(mill) == " mill"
    assert tokenizer.text_stream().push(mill) == "mill"
    after_marker = [*prompt, sentencepiece_bpe.token_to_id("<|assistant|>")]
    stream = tokenizer.text_stream(after_marker)
    assert stream.push(mill) + stream.push(mill) == "mill mill"
    for _ in range(2):
        stream = tokenizer.text_stream()
        assert "".join(stream.push_one(token_id) for token_id in mill * 2) == "mill mill"


@pytest.mark.parametrize(
    "decoder",
    [decoders.WordPiece(), decoders.BPEDecoder(), decoders.CTC(), decoders.Strip("x", 1, 0), decoders.Strip(" ", 0, 1)],
)
def test_a_decoder_that_needs_to_see_the_neighbours_is_refused(byte_level, decoder):
    other = tokenizers.Tokenizer.from_str(byte_level.to_str())
    other.decoder = decoder
    with pytest.raises(TokenizerError, match="does not give each token bytes of its own"):
        Tokenizer(other.to_str())


def test_a_byte_level_token_is_the_bytes_that_it_is_written_for_or_plain_text():
    vocabulary = {
        "\u0120the": 0,
        "\u00e9": 1,
        "\u0100": 2,
        "two words": 3,
        "\u00ad": 4,
        "\u65e5": 5,
        "\ufffd": 6,
        "": 7,
    }
    pieces, _ = piece_of_each_token(vocabulary, {"type": "ByteLevel"})
    plain = [text.encode() for text in ("two words", "\u00ad", "\u65e5", "\ufffd")]
    assert pieces == [b" the", b"\xe9", b"\0", *plain, b""]


def test_a_missing_decoder_is_refused():
    with pytest.raises(TokenizerError, match="no decoder"):
        piece_of_each_token({"a": 0}, None)


def test_an_id_that_would_fill_the_memory_is_refused():
    with pytest.raises(TokenizerError, match="has the id 4294967295; the limit is 4194303"):
        piece_of_each_token({"a": 0, "b": 2**32 - 1}, {"type": "ByteLevel"})
