"""The policy alone: slots, budget, order, chunk lengths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.decoder.recorder import LIMITS, open_letters, request
from tidemill_serving.decoder.admission import Admission
from tidemill_serving.decoder.chunks import ChunkPolicy
from tidemill_serving.decoder.scheduler import Scheduler
from tidemill_serving.decoder.sequence import Sequence, State
from tidemill_serving.decoder.slots import CopyIn, Move

ADMISSION = Admission(LIMITS, 512, 10_000, open_letters)


def sequence(sequence_id: int, prompt_length: int = 3, max_tokens: int = 8) -> Sequence:
    return ADMISSION.make_sequence(request(sequence_id, [7] * prompt_length, max_tokens))


def admitted(scheduler: Scheduler, *sequences: Sequence) -> None:
    for each in sequences:
        scheduler.add(each)
    scheduler.admit()


def decoding(scheduler: Scheduler, *sequences: Sequence) -> None:
    admitted(scheduler, *sequences)
    for each in sequences:
        scheduler.open_prefill()
        each.num_cached = len(each.prompt)
        scheduler.promote(each)


def test_sequences_are_admitted_in_the_order_in_which_they_came():
    scheduler = Scheduler(num_slots=2, token_budget=1000)
    first, second, third = (sequence(i) for i in range(3))
    admitted(scheduler, first, second, third)
    assert list(scheduler.prefilling) == [first, second]
    assert list(scheduler.waiting) == [third]
    scheduler.remove(first)
    scheduler.admit()
    assert list(scheduler.prefilling) == [second, third]


def test_nobody_is_admitted_beyond_the_token_budget():
    scheduler = Scheduler(num_slots=4, token_budget=25)
    first, second, third = (sequence(i) for i in range(3))  # 11 tokens each
    admitted(scheduler, first, second, third)
    assert third.state is State.WAITING
    assert scheduler.load().num_free_tokens == 19
    scheduler.remove(second)
    scheduler.admit()
    assert third.state is State.PREFILL
    assert scheduler.load().num_free_tokens == 19


def test_a_large_sequence_at_the_front_is_not_overtaken_for_ever():
    scheduler = Scheduler(num_slots=4, token_budget=25)
    running, large, small = sequence(0), sequence(1, 10, 10), sequence(2, 1, 1)
    admitted(scheduler, running, large, small)
    assert list(scheduler.waiting) == [large, small]


def test_the_last_decoding_sequence_moves_into_the_hole_of_one_that_leaves():
    scheduler = Scheduler(num_slots=3, token_budget=1000)
    first, second, third = sequence(0), sequence(1), sequence(2, 5)
    decoding(scheduler, first, second, third)
    assert scheduler.remove(first) == [Move(2, 0, 5)]
    assert [each.slot for each in scheduler.decoding] == [0, 1]
    assert scheduler.decoding == [third, second]


def test_a_sequence_that_prefills_in_the_way_gives_its_slot_to_one_that_decodes():
    scheduler = Scheduler(num_slots=3, token_budget=200, headroom=1)
    oldest, preempted, slow = sequence(0, 3, 100), sequence(1, 3, 100), sequence(2, 90, 1)
    decoding(scheduler, oldest, preempted)
    oldest.completion, preempted.completion = [5] * 98, [5] * 98
    for _ in range(97):
        scheduler.grow([oldest, preempted])
    scheduler.make_room()
    preempted.saved = []
    assert scheduler.preempted == [preempted]
    scheduler.remove(oldest, keeps=False)
    slow.state, slow.num_cached = State.PREFILL, 16
    scheduler.prefilling.append(slow)
    scheduler.slots.seat(slow, 0)
    assert scheduler.admit() == [Move(0, 3, 16), CopyIn(0, [])]
    assert (slow.slot, preempted.slot) == (3, 0)


def test_there_is_a_spare_slot_even_when_all_run():
    scheduler = Scheduler(num_slots=2, token_budget=1000)
    decoding(scheduler, sequence(0), sequence(1))
    assert scheduler.spare_slot() == 2


@given(
    num_left=st.integers(1, 5000),
    longest=st.integers(16, 600),
    seconds_per_token=st.floats(1e-6, 1.0),
    decode_s=st.floats(0, 1.0),
    others_decode=st.booleans(),
)
def test_a_prompt_is_cut_into_pieces_of_which_none_is_a_single_token(
    num_left, longest, seconds_per_token, decode_s, others_decode
):
    policy = ChunkPolicy(inter_token_budget_s=0.05, max_chunk_length=longest)
    policy.saw_prefill(seconds_per_token * 64, 64)
    policy.saw_decode(decode_s)
    is_single = num_left == 1
    while num_left:
        length = policy.length(num_left, others_decode=others_decode)
        assert 1 <= length <= min(num_left, longest)
        assert length > 1 or is_single
        num_left -= length


def test_a_piece_fits_into_what_the_decode_run_leaves_of_the_budget():
    policy = ChunkPolicy(inter_token_budget_s=0.050, max_chunk_length=512)
    policy.saw_prefill(0.064, 64)  # 1 ms a token
    policy.saw_decode(0.010)
    assert policy.length(500, others_decode=True) == pytest.approx(40, abs=1)
    assert policy.length(500, others_decode=False) == 500


def test_how_long_the_longest_piece_takes_is_told_by_shorter_ones():
    policy = ChunkPolicy(inter_token_budget_s=0.050, max_chunk_length=512)
    assert policy.longest_chunk_s == 0
    policy.saw_prefill(0.064, 64)
    assert policy.longest_chunk_s == pytest.approx(0.512)


def test_a_prompt_moves_on_even_when_decoding_alone_takes_the_whole_budget():
    policy = ChunkPolicy(inter_token_budget_s=0.050, max_chunk_length=512)
    policy.saw_prefill(0.064, 64)
    policy.saw_decode(0.2)
    assert policy.length(500, others_decode=True) == 16
