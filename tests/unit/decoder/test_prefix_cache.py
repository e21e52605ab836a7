"""What was computed for one prompt serves others that begin alike: counted in tokens that were computed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.decoder.integrity import check_integrity
from tests.unit.decoder.recorder import LoopRig
from tidemill_serving.decoder.devices.fake import FakeDevice, fake_answer
from tidemill_serving.decoder.prefix import BLOCK_LENGTH, extend_chain, num_shared_blocks
from tidemill_serving.decoder.sequence import Limits

LIMITS = Limits(1024, frozenset({2}))
OPENING = [3 + i * 7 % 400 for i in range(512)]


class Served(LoopRig):
    """Runs generations to their end, and says how many prompt tokens each cost."""

    def __init__(self, **settings):
        self.device = FakeDevice()
        super().__init__(self.device, limits=LIMITS, max_chunk_length=128, **settings)
        self.next_id = 0

    def ask(self, *prompts, max_tokens=8, **fields):
        """Tokens computed for these prompts, which come together; their answers are checked."""
        before = self.loop.counters.num_prefill_tokens
        ids = range(self.next_id, self.next_id + len(prompts))
        self.next_id += len(prompts)
        for i, prompt in zip(ids, prompts, strict=True):
            self.add(i, prompt, max_tokens, **fields)
        while self.scheduler.has_work:
            self.step()
            check_integrity(self.scheduler, self.device)
        for i, prompt in zip(ids, prompts, strict=True):
            assert self.recorder.tokens[i] == fake_answer(prompt, max_tokens)
        return self.loop.counters.num_prefill_tokens - before

    def answer(self, *prompt, max_tokens):
        return list(prompt) + fake_answer(prompt, max_tokens)


def test_a_shared_opening_of_512_tokens_is_computed_once():
    rig = Served()
    assert rig.ask([*OPENING, 9, 9, 9]) == 515
    assert rig.ask([*OPENING, 8, 8]) == 2
    end = rig.recorder.ends[1]
    assert (end.num_prompt_tokens, end.num_cached_prompt_tokens) == (514, 512)
    assert rig.recorder.ends[0].num_cached_prompt_tokens == 0


def test_prompts_that_come_together_share_their_opening_from_a_slot_that_runs():
    rig = Served()
    assert rig.ask(*([*OPENING, tail, tail] for tail in range(10, 14)), max_tokens=40) == 512 + 4 * 2


def test_a_whole_prompt_that_is_known_is_computed_from_its_last_two_tokens_on():
    rig = Served()
    rig.ask(OPENING)
    assert rig.ask(OPENING) == 2
    assert rig.ask(OPENING[:64]) == 2
    assert rig.ask(OPENING[:63]) == 63


def test_the_next_turn_of_a_chat_finds_the_answer_before_it_too():
    rig = Served()
    rig.ask(OPENING[:100], max_tokens=60)
    turn = [*OPENING[:100], *fake_answer(OPENING[:100], 60), 5, 6, 7]
    assert rig.ask(turn) == len(turn) - 128


def test_an_exact_generation_takes_nothing_that_was_generated_nor_what_stands_on_it():
    rig = Served()
    rig.ask(OPENING[:100], max_tokens=60)
    turn = [*OPENING[:100], *fake_answer(OPENING[:100], 60), *OPENING[:100]]
    rig.ask(turn)  # its slot begins with what was generated
    assert rig.ask(turn, exact=True) == len(turn) - 100
    assert rig.ask(turn, exact=True) == 4  # after one that was computed throughout


def test_accounts_share_nothing_unless_the_model_says_so():
    rig = Served()
    rig.ask(OPENING, account_salt=b"ada")
    assert rig.ask(OPENING, account_salt=b"bob") == 512
    assert rig.ask(OPENING, account_salt=b"ada") == 2
    rig.admission = type(rig.admission)(LIMITS, 512, 4096, rig.admission.open_text, shares_prefixes=True)
    rig.ask(OPENING, account_salt=b"ada")
    assert rig.ask(OPENING, account_salt=b"bob") == 2


def test_without_the_prefix_cache_everything_is_computed():
    rig = Served(prefix_cache=False)
    assert [rig.ask(OPENING) for _ in range(2)] == [512, 512]
    assert rig.scheduler.num_kept_tokens == 0


def test_what_was_used_longest_ago_gives_way():
    rig = Served(num_slots=1, num_cache_slots=1, token_budget=4096)  # three slots in all
    first, second, third, fourth = ([start + i % 50 for i in range(128)] for start in (10, 70, 130, 190))
    for prompt in (first, second, first, third, fourth):
        rig.ask(prompt, max_tokens=1)
    assert rig.ask(first, max_tokens=1) == 2
    assert rig.ask(second, max_tokens=1) == 128


def test_what_is_kept_counts_against_the_budget_and_gives_way_before_anybody_does():
    rig = Served(token_budget=600)
    rig.ask(OPENING, max_tokens=4)
    assert rig.scheduler.num_kept_tokens == 512
    assert rig.scheduler.load().num_free_tokens == 600
    rig.ask([7] * 500, max_tokens=40)
    assert rig.scheduler.num_kept_tokens <= 600
    assert rig.scheduler.num_preemptions == 0


def test_one_who_goes_on_where_little_room_is_takes_the_slot_over_in_place():
    rig = Served(token_budget=700)
    rig.ask([*OPENING, *[9] * 64], max_tokens=4)
    assert rig.ask([*OPENING, *[8] * 64], max_tokens=4) == 64


def test_a_cancelled_prompt_leaves_what_was_computed_of_it():
    rig = Served()
    rig.add(99, OPENING)
    for _ in range(2):
        rig.step()
    rig.step(99)
    assert rig.ask(OPENING) == 512 - 256


@given(
    one=st.lists(st.integers(0, 3), max_size=5),
    other=st.lists(st.integers(0, 3), max_size=5),
    salts=st.tuples(st.binary(max_size=3), st.binary(max_size=3)),
)
def test_chains_are_equal_as_far_as_blocks_and_salts_are(one, other, salts):
    def chain(blocks, salt):
        return extend_chain((), np.repeat(np.array(blocks, np.int64), BLOCK_LENGTH), salt)

    num_equal = 0
    while num_equal < min(len(one), len(other)) and one[num_equal] == other[num_equal]:
        num_equal += 1
    expected = num_equal if salts[0] == salts[1] else 0
    assert num_shared_blocks(chain(one, salts[0]), chain(other, salts[1])) == expected


@pytest.mark.parametrize("num_known", [0, 1, 3])
def test_a_chain_that_is_extended_is_the_chain_of_the_whole(num_known):
    tokens = np.arange(5 * BLOCK_LENGTH + 9, dtype=np.int64)
    known = extend_chain((), tokens[: num_known * BLOCK_LENGTH], b"salt")
    assert extend_chain(known, tokens, b"salt") == extend_chain((), tokens, b"salt")
