"""Several answers to one prompt: it is computed once, and each answer is what it would be alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.decoder.integrity import check_integrity
from tests.unit.decoder.recorder import LoopRig, hot
from tidemill_serving.decoder.devices.fake import FakeDevice, fake_answer
from tidemill_serving.engine import FinishReason, Sampling

PROMPT = [9, *range(40, 80)]
GROUP = ("a caller", 1)


class CountingDevice(FakeDevice):
    """Counts the tokens of prompts that it computes, and gives flatter logits, so that seeds matter."""

    def __init__(self) -> None:
        super().__init__()
        self.num_extended = 0

    def extend(self, slot, token_ids, num_past):
        self.num_extended += len(token_ids)
        return super().extend(slot, token_ids, num_past)

    def _answer(self, digests):
        logits = super()._answer(digests)
        logits += np.sin(digests[:, None] * 0.7 + np.arange(logits.shape[1]) * 0.3).astype(np.float32)
        return logits


def answers_alone(wishes: dict[int, dict]) -> dict[int, list[int]]:
    found = {}
    for sequence_id, wish in wishes.items():
        rig = LoopRig(CountingDevice())
        rig.add(sequence_id, **wish)
        rig.run()
        found[sequence_id] = rig.recorder.tokens[sequence_id]
    return found


def test_a_prompt_of_a_group_is_computed_once():
    device = CountingDevice()
    rig = LoopRig(device, num_slots=4)
    for place in range(4):
        rig.add(place, PROMPT, sampling=hot(seed=place), prompt_group=GROUP)
    rig.run()
    assert device.num_extended == len(PROMPT)
    assert rig.recorder.tokens == answers_alone(
        {place: {"prompt": PROMPT, "sampling": hot(seed=place)} for place in range(4)}
    )
    assert len({tuple(tokens) for tokens in rig.recorder.tokens.values()}) == 4


def test_those_that_find_no_slot_at_first_copy_it_from_one_that_decodes():
    device = CountingDevice()
    rig = LoopRig(device, num_slots=2)
    for place in range(5):
        rig.add(place, PROMPT, max_tokens=3 + 4 * place, prompt_group=GROUP)
    rig.run()
    assert device.num_extended == len(PROMPT)
    assert all(len(rig.recorder.tokens[place]) == 3 + 4 * place for place in range(5))
    assert len({tuple(tokens[:3]) for tokens in rig.recorder.tokens.values()}) == 1


def test_when_all_of_a_group_have_ended_the_next_computes_the_prompt_again():
    rig = LoopRig(FakeDevice(), num_slots=1)
    rig.add(1, PROMPT, max_tokens=1, prompt_group=GROUP)
    rig.add(2, PROMPT, max_tokens=5, prompt_group=GROUP)
    rig.run()
    assert rig.recorder.tokens == {1: fake_answer(PROMPT, 1), 2: fake_answer(PROMPT, 5)}


@pytest.mark.parametrize("group", [None, ("another caller", 1)])
def test_other_groups_and_none_share_nothing(group):
    device = CountingDevice()
    rig = LoopRig(device)
    rig.add(1, PROMPT, prompt_group=group)
    rig.add(2, PROMPT, prompt_group=GROUP)
    rig.run()
    assert device.num_extended == 2 * len(PROMPT)


def test_a_group_with_different_prompts_is_believed_by_its_tokens_alone():
    rig = LoopRig(FakeDevice())
    rig.add(1, PROMPT, prompt_group=GROUP)
    for place in (2, 3):
        rig.add(place, [*PROMPT, 11], prompt_group=GROUP)
    rig.run()
    other = fake_answer([*PROMPT, 11], 8)
    assert rig.recorder.tokens == {1: fake_answer(PROMPT, 8), 2: other, 3: other}


def test_one_that_is_cancelled_takes_none_of_its_group_along():
    rig = LoopRig(FakeDevice(), num_slots=3)
    for place in range(3):
        rig.add(place, PROMPT, max_tokens=20, prompt_group=GROUP)
    while not rig.recorder.tokens.get(0):
        rig.step()
    rig.step(0)
    rig.run()
    assert rig.recorder.ends[0].finish_reason is FinishReason.CANCELLED
    assert rig.recorder.tokens[1] == rig.recorder.tokens[2] == fake_answer(PROMPT, 20)


wishes = st.fixed_dictionaries(
    {
        "prompt": st.sampled_from([PROMPT, PROMPT[:7], [5, 6]]),
        "max_tokens": st.integers(1, 12),
        "prompt_group": st.sampled_from([None, 1, 2]),
        "sampling": st.builds(
            Sampling,
            temperature=st.sampled_from([0.0, 0.7, 1.8]),
            top_p=st.sampled_from([1.0, 0.6]),
            top_k=st.sampled_from([0, 30]),
            min_p=st.sampled_from([0.0, 0.2]),
            repetition_penalty=st.sampled_from([1.0, 1.5]),
            presence_penalty=st.sampled_from([0.0, 1.0]),
            frequency_penalty=st.sampled_from([0.0, 0.5]),
            logit_bias=st.sampled_from([(), ((50, 3.0), (60, -100.0))]),
            seed=st.integers(0, 5),
        ),
    }
)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(wishes, st.integers(0, 4)), min_size=1, max_size=9), st.integers(1, 5))
def test_a_seed_gives_the_same_tokens_whatever_else_runs(plan, num_slots):
    device = CountingDevice()
    rig = LoopRig(device, num_slots=num_slots)
    for sequence_id, (wish, num_steps) in enumerate(plan):
        rig.add(sequence_id, **wish)
        for _ in range(num_steps):
            rig.step()
    rig.run()
    assert rig.recorder.tokens == answers_alone({number: wish for number, (wish, _) in enumerate(plan)})
    check_integrity(rig.scheduler, device)


def test_log_probabilities_come_with_their_tokens_and_ignored_ends_go_on():
    rig = LoopRig(FakeDevice())
    answer = fake_answer([5, 6, 7], 6)
    rig = LoopRig(FakeDevice(), limits=type(rig.admission.limits)(128, frozenset({answer[2]})))
    rig.add(1, max_tokens=6, num_logprobs=2, ignore_eos=True)
    outputs = []
    while rig.scheduler.has_work:
        outputs += rig.step()
    assert rig.recorder.tokens[1] == answer
    assert rig.recorder.ends[1].finish_reason is FinishReason.LENGTH
    for output in outputs:
        assert len(output.logprobs) == len(output.token_ids)
        for token, logprobs in zip(output.token_ids, output.logprobs, strict=True):
            assert logprobs.top[0] == (token, logprobs.chosen)
            assert len(logprobs.top) == 2
