import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill_models.chat import ChatPart
from tidemill_models.errors import InvalidTextError, PromptTooLargeError, TokenizerError
from tidemill_models.tokenizer import Tokenizer

# Fixtures are made once a session and never changed, so that hypothesis may use them for many examples.
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
spiced_text = st.lists(
    st.sampled_from(["<|end|>", "<|", "end", "|>", "</s>", "<s>", "＜/s＞", "<tool>", " ", "\n", "tide", "é", "    "]),
    max_size=12,
).map("".join)


def test_plain_text_is_encoded_as_hugging_face_does(any_kind):
    tokenizer = Tokenizer(any_kind.to_str())
    for text in ["The tide mill", " leading space", "Grüße, naïve café", "1, 2, 3\n\n  x", "日本語 😀", "    four"]:
        assert tokenizer.encode(text) == any_kind.encode(text, add_special_tokens=False).ids


def test_a_control_token_that_a_user_writes_is_encoded_like_the_text_around_it(byte_level, sentencepiece_bpe):
    for theirs in (byte_level, sentencepiece_bpe):
        as_text = type(theirs).from_str(theirs.to_str())
        as_text.encode_special_tokens = True
        for text in ("a <|end|> b", "<|end|>", "<|user|><|end|>"):
            assert Tokenizer(theirs.to_str()).encode(text) == as_text.encode(text, add_special_tokens=False).ids


@relaxed
@given(text=spiced_text)
def test_no_text_of_a_user_becomes_a_control_token(any_kind, text):
    control = {
        token_id
        for token_id, added in any_kind.get_added_tokens_decoder().items()
        if added.content != "<unk>" and added.content.strip()
    }
    tokenizer = Tokenizer(any_kind.to_str())
    assert control.isdisjoint(tokenizer.encode(text))
    assert control.isdisjoint(tokenizer.encode_chat([ChatPart(text, from_template=False)]))


def test_a_chat_is_encoded_as_hugging_face_encodes_it_when_contents_are_harmless(byte_level, sentencepiece_bpe):
    parts = [
        ChatPart("<|begin|><|user|>\n", from_template=True),
        ChatPart("The tide is low.", from_template=False),
        ChatPart("<|end|>\nSaid: ", from_template=True),
        ChatPart("a café", from_template=False),
        ChatPart("<|end|><|assistant|>", from_template=True),
    ]
    rendered = "".join(part.text for part in parts)
    for theirs in (byte_level, sentencepiece_bpe):
        assert Tokenizer(theirs.to_str()).encode_chat(parts) == theirs.encode(rendered, add_special_tokens=False).ids


@pytest.mark.parametrize(("strips_left", "strips_right"), [(True, False), (False, True), (True, True)])
def test_control_tokens_that_take_the_space_beside_them_do_so(byte_level, strips_left, strips_right):
    spec = json.loads(byte_level.to_str())
    for added in spec["added_tokens"]:
        if added["content"] in ("<|user|>", "<|end|>"):
            added |= {"lstrip": strips_left, "rstrip": strips_right}
    text = json.dumps(spec)
    parts = [
        ChatPart("<|user|> \n", from_template=True),
        ChatPart(" tide\u3000", from_template=False),
        ChatPart("<|end|>\nx", from_template=True),
    ]
    theirs = type(byte_level).from_str(text)
    rendered = "".join(part.text for part in parts)
    assert Tokenizer(text).encode_chat(parts) == theirs.encode(rendered, add_special_tokens=False).ids


def test_a_control_token_cannot_be_put_together_from_template_and_content(byte_level):
    tokenizer = Tokenizer(byte_level.to_str())
    parts = [ChatPart("<|", from_template=True), ChatPart("end|>", from_template=False)]
    assert tokenizer.encode_chat(parts) == tokenizer.encode("<|end|>")
    assert byte_level.token_to_id("<|end|>") not in tokenizer.encode_chat(parts)


def test_a_marker_that_the_tokenizer_does_not_call_special_is_kept_from_users_and_left_to_templates(byte_level):
    tokenizer = Tokenizer(byte_level.to_str())
    tool = byte_level.token_to_id("<tool>")
    assert tool not in tokenizer.encode("<tool>")
    assert tokenizer.encode_chat([ChatPart("<tool>", from_template=True)]) == [tool]
    assert tokenizer.decode([tool]) == "<tool>"


def test_a_control_token_among_ordinary_pieces_is_cut(unigram):
    end = unigram.token_to_id("</s>")
    assert end in unigram.encode("a</s>b", add_special_tokens=False).ids
    tokenizer = Tokenizer(unigram.to_str())
    assert end not in tokenizer.encode("a</s>b")
    assert tokenizer.decode(tokenizer.encode("a</s>b")).replace(" ", "") == "a</s>b"
    assert tokenizer.encode("tide") == unigram.encode("tide", add_special_tokens=False).ids


@relaxed
@given(text=plain_text)
def test_bytes_survive_the_way_there_and_back(byte_level, text):
    tokenizer = Tokenizer(byte_level.to_str())
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_chance_of_the_file_is_left_out(byte_level):
    spec = json.loads(byte_level.to_str())
    spec["model"]["dropout"] = 1.0
    text = "the mill and the water"
    assert Tokenizer(json.dumps(spec)).encode(text) == Tokenizer(byte_level.to_str()).encode(text)


def test_truncation_and_padding_of_the_file_are_not_applied(byte_level):
    spec = json.loads(byte_level.to_str())
    spec["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    assert len(Tokenizer(json.dumps(spec)).encode("The tide mill grinds the grain")) > 2


def test_a_text_over_the_limit_of_bytes_is_refused_before_it_is_tokenized(byte_level):
    tokenizer = Tokenizer(byte_level.to_str(), max_text_bytes=10)
    assert tokenizer.encode("é" * 5)
    with pytest.raises(PromptTooLargeError, match="11 bytes of UTF-8; the limit is 10"):
        tokenizer.encode("é" * 5 + "x")
    with pytest.raises(PromptTooLargeError):
        tokenizer.encode_chat([ChatPart("12345", from_template=True), ChatPart("678901", from_template=False)])


def test_a_lone_surrogate_is_refused(byte_level):
    with pytest.raises(InvalidTextError, match="surrogate"):
        Tokenizer(byte_level.to_str()).encode("a\ud800")


def test_the_vocabulary_size_is_one_above_the_largest_id(byte_level):
    tokenizer = Tokenizer(byte_level.to_str())
    assert tokenizer.vocabulary_size == byte_level.get_vocab_size()
    assert tokenizer.token_text(1) == "<|end|>"
    assert tokenizer.token_text(-1) is None
    assert tokenizer.token_text(10**12) is None


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", "{}", '{"added_tokens": 5}', "[" * 100_000, '{"version": "1.0", "added_tokens": []}'],
)
def test_what_is_no_tokenizer_is_refused_with_its_path(text):
    with pytest.raises(TokenizerError, match=r"some/tokenizer\.json: "):
        Tokenizer(text, path="some/tokenizer.json")


def test_garbage_in_each_part_of_the_file_is_refused(byte_level):
    for key in ("added_tokens", "model", "decoder", "pre_tokenizer"):
        for garbage in (5, "text", [1], {"type": "Nonsense"}, None):
            if (key, garbage) == ("pre_tokenizer", None):
                continue
            spec = json.loads(byte_level.to_str()) | {key: garbage}
            with pytest.raises(TokenizerError):
                Tokenizer(json.dumps(spec))


def test_a_control_token_whose_id_is_not_what_the_file_says_is_refused(byte_level):
    spec = json.loads(byte_level.to_str())
    spec["added_tokens"][1]["id"] = 2**32 - 1
    with pytest.raises(TokenizerError, match=r"gives the token '<\|end\|>' another id than 4294967295"):
        Tokenizer(json.dumps(spec))
