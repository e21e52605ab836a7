"""Text and ends of one sequence, token by token."""

from tests.unit.decoder.recorder import LIMITS, request
from tidemill_models.text_stream import TextStream
from tidemill_serving.decoder.admission import Admission
from tidemill_serving.engine import FinishReason

BYTES = [bytes([token]) for token in range(256)]
ADMISSION = Admission(LIMITS, 256, 1000, lambda prompt: TextStream(BYTES, strips_leading_space=False))


def sequence(**fields):
    return ADMISSION.make_sequence(request(1, max_tokens=fields.pop("max_tokens", 50), **fields))


def test_a_character_of_several_tokens_comes_out_when_it_is_complete():
    outputs = [sequence_.take(byte) for sequence_ in [sequence()] for byte in "a🌊é".encode()]
    assert [output.text for output in outputs] == ["a", "", "", "", "🌊", "", "é"]
    assert [output.token_ids for output in outputs] == [(byte,) for byte in "a🌊é".encode()]


def test_a_character_that_never_becomes_complete_is_replaced_at_the_end():
    broken = sequence(max_tokens=3)
    texts = [broken.take(byte).text for byte in "a🌊".encode()[:3]]
    assert texts == ["a", "", "\ufffd"]


def test_a_stop_string_within_a_character_of_several_tokens_is_found():
    stopped = sequence(stop=("🌊",))
    outputs = [stopped.take(byte) for byte in "a🌊".encode()]
    assert "".join(output.text for output in outputs) == "a"
    assert outputs[-1].finish_reason is FinishReason.STOP
    assert outputs[-1].num_completion_tokens == 5


def test_a_stop_string_that_the_last_token_completes_ends_with_stop_not_length():
    stopped = sequence(stop=("bc",), max_tokens=3)
    outputs = [stopped.take(byte) for byte in b"abc"]
    assert outputs[-1].finish_reason is FinishReason.STOP
    assert "".join(output.text for output in outputs) == "a"


def test_a_stop_string_of_a_replaced_character_at_the_end_is_found():
    stopped = sequence(stop=("\ufffd",), max_tokens=2)
    outputs = [stopped.take(byte) for byte in "a🌊".encode()[:2]]
    assert outputs[-1].finish_reason is FinishReason.STOP
    assert outputs[-1].text == ""


def test_a_cancelled_answer_shows_what_was_held_back():
    held = sequence(stop=("bcd",))
    assert [held.take(byte).text for byte in b"abc"] == ["a", "", ""]
    end = held.end(FinishReason.CANCELLED)
    assert (end.text, end.finish_reason, end.num_completion_tokens) == ("bc", FinishReason.CANCELLED, 3)
