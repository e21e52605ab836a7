"""Log-probabilities on their way: packed, cut into pieces, kept for whoever attaches again, in OpenAI's shapes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.services.test_recording import END, rest, some
from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.domain.logprobs import Candidate, Logprobs
from tidemill_services.domain.sampling import MAX_WHOLE_LOGPROBS, check_whole_logprobs
from tidemill_services.gateway.openai_logprobs import chat_logprobs, num_characters, text_logprobs
from tidemill_services.generation_events import Delta
from tidemill_services.recording import Recording

TEXTS = {1: b"a", 2: b"bc", 3: b"\xc3", 4: b"a"}


def some_logprobs(*token_ids: int) -> Logprobs:
    """Each token with the two likeliest, 4 and itself."""
    top_ids = [token for token_id in token_ids for token in (4, token_id)]
    return Logprobs(
        token_ids, [-float(token) for token in token_ids], top_ids, [-0.5, -1.5] * len(token_ids), TEXTS.__getitem__
    )


@settings(deadline=None)
@given(st.lists(st.sampled_from(list(TEXTS)), max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_parts_put_together_again_are_the_whole(token_ids: list[int], first: int, last: int) -> None:
    whole = some_logprobs(*token_ids)
    first, last = sorted((min(first, len(token_ids)), min(last, len(token_ids))))
    joined = Logprobs()
    for part in (whole.part(0, first), whole.part(first, last), whole.part(last, len(token_ids))):
        joined.extend(part)
    assert list(joined) == list(whole)
    assert joined.num_bytes == whole.num_bytes
    assert [chosen.token_id for chosen, _ in whole] == token_ids


async def test_a_recording_gives_each_piece_the_log_probabilities_of_its_tokens_again_and_again() -> None:
    recording = Recording()
    recording.add("a", 1, some_logprobs(1))
    seen = await some(recording, 0, 1)
    recording.add("", 1, some_logprobs(2))
    recording.add("bc", 1, some_logprobs(3))
    recording.finish(END)
    seen += await rest(recording, 1)
    again = await rest(recording)
    for events in (seen, again):
        deltas = [event for _, event in events if isinstance(event, Delta)]
        assert [list(delta.logprobs or ()) for delta in deltas] == [list(some_logprobs(1)), list(some_logprobs(2, 3))]


async def test_a_recording_that_drops_its_oldest_pieces_keeps_the_others_log_probabilities() -> None:
    recording = Recording(max_bytes=1_000)
    for number in range(30):
        assert recording.add("x", 1, some_logprobs(1 + number % 3))
        await some(recording, number, 1)
    assert recording.num_bytes < 5_000
    ((_, last),) = await some(recording, 29, 1)
    assert isinstance(last, Delta)
    assert list(last.logprobs or ()) == list(some_logprobs(3))


def test_a_chat_has_texts_and_bytes_of_each_candidate() -> None:
    (content,) = chat_logprobs(some_logprobs(3))["content"]
    assert (content["token"], content["bytes"], content["logprob"]) == ("\ufffd", [0xC3], -3.0)
    assert [each["token"] for each in content["top_logprobs"]] == ["a", "\ufffd"]


def test_a_text_has_offsets_and_of_tokens_with_one_text_the_likeliest() -> None:
    found = text_logprobs(some_logprobs(2, 1), 10)
    assert found == {
        "tokens": ["bc", "a"],
        "token_logprobs": [-2.0, -1.0],
        "top_logprobs": [{"a": -0.5, "bc": -1.5}, {"a": -0.5}],
        "text_offset": [10, 12],
    }
    assert num_characters(some_logprobs(2, 1)) == 3


def test_a_candidate_without_the_likeliest_is_told_alone() -> None:
    found = Logprobs([1], [-1.0], text_of=TEXTS.__getitem__)
    assert list(found) == [(Candidate(1, b"a", -1.0), ())]
    assert text_logprobs(found, 0)["top_logprobs"] == [{"a": -1.0}]


def test_what_comes_whole_is_bounded_by_all_it_has() -> None:
    check_whole_logprobs(None, 10**9, "x")
    check_whole_logprobs(0, MAX_WHOLE_LOGPROBS, "x")
    check_whole_logprobs(20, MAX_WHOLE_LOGPROBS // 21, "x")
    with pytest.raises(FieldInvalidError) as refused:
        check_whole_logprobs(20, MAX_WHOLE_LOGPROBS // 21 + 1, "logprobs")
    assert refused.value.field == "logprobs"
