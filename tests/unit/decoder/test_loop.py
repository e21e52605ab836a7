"""Steps by hand on the fake device, whose answers depend on every token in the cache."""

import numpy as np
import pytest

from tests.unit.decoder.recorder import EOS, LIMITS, LoopRig, hot, letters
from tidemill_serving.decoder.devices.device import DeviceError
from tidemill_serving.decoder.devices.fake import FakeDevice, fake_answer
from tidemill_serving.decoder.sequence import Limits
from tidemill_serving.engine import FinishReason
from tidemill_telemetry.call_record import Origin
from tidemill_telemetry.trace_context import TraceContext

POISON = 3


class BrokenDevice(FakeDevice):
    """Stops running anything when told so."""

    is_broken = False

    def _run(self, token_ids):
        if self.is_broken:
            raise DeviceError("the board is on fire")
        super()._run(token_ids)


class NotANumberDevice(FakeDevice):
    """Answers NaN to the slot of whoever sends the token 4."""

    def extend(self, slot, token_ids, num_past):
        logits = super().extend(slot, token_ids, num_past).copy()
        if 4 in token_ids:
            logits[100] = np.nan
        return logits


class BrokenText:
    """A text stream with a fault."""

    def push_one(self, token_id):
        raise KeyError(token_id)

    def finish(self):
        raise KeyError


def test_sequences_that_join_and_leave_get_what_they_would_get_alone():
    rig = LoopRig(FakeDevice())
    prompts = {i: [5 + i, *range(6, 6 + 3 * i)] for i in range(12)}
    for i, prompt in prompts.items():
        rig.add(i, prompt, max_tokens=3 + 5 * i % 17)
        rig.step()
    rig.run()
    for i, prompt in prompts.items():
        assert rig.recorder.tokens[i] == fake_answer(prompt, 3 + 5 * i % 17)


def test_a_step_decodes_all_and_prefills_one_piece():
    rig = LoopRig(FakeDevice(), max_chunk_length=16)
    rig.add(1, [5] * 4)
    rig.step()
    rig.add(2, [6] * 40)
    assert [len(rig.step()) for _ in range(3)] == [1, 1, 2]  # 16, 16 and 8 tokens of the prompt, then its first answer
    assert [output.sequence_id for output in rig.step()] == [1, 2]


def test_an_answer_ends_with_length_at_max_tokens():
    rig = LoopRig(FakeDevice())
    rig.add(1, max_tokens=5)
    rig.run()
    end = rig.recorder.ends[1]
    assert end.finish_reason is FinishReason.LENGTH
    assert (end.num_prompt_tokens, end.num_completion_tokens) == (3, 5)
    assert rig.recorder.texts[1] == letters(fake_answer([5, 6, 7], 5))


def test_an_answer_ends_with_length_when_the_context_is_full():
    rig = LoopRig(FakeDevice())
    rig.add(1, [5] * (LIMITS.context_length - 4), max_tokens=100)
    rig.run()
    assert rig.recorder.ends[1].finish_reason is FinishReason.LENGTH
    assert rig.recorder.ends[1].num_completion_tokens == 4


def test_an_end_of_sequence_token_is_counted_and_not_shown():
    answer = fake_answer([5, 6, 7], 8)
    rig = LoopRig(FakeDevice(), limits=Limits(128, frozenset({EOS, answer[4]})))
    rig.add(1)
    rig.run()
    end = rig.recorder.ends[1]
    assert end.finish_reason is FinishReason.STOP
    assert rig.recorder.tokens[1] == answer[:5]
    assert rig.recorder.texts[1] == letters(answer[:4])
    assert end.num_completion_tokens == 5


def test_a_stop_string_over_several_tokens_is_never_shown_in_part():
    text = letters(fake_answer([5, 6, 7], 12))
    rig = LoopRig(FakeDevice())
    rig.add(1, max_tokens=12, stop=(text[4:7],))
    rig.run()
    end = rig.recorder.ends[1]
    assert end.finish_reason is FinishReason.STOP
    assert rig.recorder.texts[1] == text[:4]
    assert end.num_completion_tokens == 7


def test_text_held_back_for_a_stop_string_comes_out_at_the_end():
    text = letters(fake_answer([5, 6, 7], 6))
    rig = LoopRig(FakeDevice())
    rig.add(1, max_tokens=6, stop=(text[4:6] + "never",))
    rig.run()
    assert rig.recorder.ends[1].finish_reason is FinishReason.LENGTH
    assert rig.recorder.texts[1] == text


@pytest.mark.parametrize("num_steps", [0, 1, 2, 5])
def test_a_cancel_ends_a_generation_in_the_next_step_and_frees_its_slot(num_steps):
    rig = LoopRig(FakeDevice(), num_slots=1)
    rig.add(1, [5] * 30, max_tokens=60)
    rig.add(2, max_tokens=60)
    for _ in range(num_steps):
        rig.step()
    rig.step(1)
    assert rig.recorder.ends[1].finish_reason is FinishReason.CANCELLED
    assert list(rig.scheduler) == list(rig.scheduler.prefilling) + list(rig.scheduler.decoding)  # 2 has the slot


@pytest.mark.parametrize("prompt_length", [3, 100])
def test_a_deadline_ends_a_generation_in_the_next_step_wherever_it_is(prompt_length):
    rig = LoopRig(FakeDevice(), num_slots=1)
    rig.add(1, [5] * prompt_length, max_tokens=20, deadline=10.0)
    rig.add(2, max_tokens=20, deadline=10.0)
    rig.step()
    rig.step()
    rig.now = 9.9
    rig.step()
    assert not rig.recorder.ends
    rig.now = 10.0
    rig.step()
    assert {end.finish_reason for end in rig.recorder.ends.values()} == {FinishReason.DEADLINE}
    assert set(rig.recorder.ends) == {1, 2}
    assert not rig.scheduler.has_work


def test_a_poisoned_prompt_ends_alone_with_an_error():
    rig = LoopRig(FakeDevice(poison=POISON))
    rig.add(1)
    rig.add(2, [5, POISON, 6])
    rig.add(3)
    rig.run()
    assert rig.recorder.ends[2].finish_reason is FinishReason.ERROR
    assert "poison" in rig.recorder.ends[2].error
    for neighbour in (1, 3):
        assert rig.recorder.tokens[neighbour] == fake_answer([5, 6, 7], 8)
    assert not rig.loop.failure


def test_a_row_that_fails_in_a_batch_ends_and_its_neighbours_go_on_unharmed():
    prompts = {i: [40 + i, 9, 9] for i in range(4)}
    answers = {i: fake_answer(prompt, 10) for i, prompt in prompts.items()}
    poison = answers[1][4]
    assert all(poison not in answer[:9] for i, answer in answers.items() if i != 1)
    rig = LoopRig(FakeDevice(poison=poison))
    for i, prompt in prompts.items():
        rig.add(i, prompt, max_tokens=10)
    rig.run()
    assert rig.recorder.ends[1].finish_reason is FinishReason.ERROR
    assert rig.recorder.tokens[1] == answers[1][:5]
    for i in (0, 2, 3):
        assert rig.recorder.tokens[i] == answers[i]
        assert rig.recorder.ends[i].finish_reason is FinishReason.LENGTH
    assert not rig.loop.failure


def test_a_device_that_runs_nothing_any_more_is_reported():
    device = BrokenDevice()
    rig = LoopRig(device)
    rig.add(1)
    rig.add(2)
    rig.step()
    device.is_broken = True
    rig.step()
    assert "on fire" in rig.loop.failure
    assert rig.recorder.ends[1].finish_reason is FinishReason.ERROR


def test_logits_that_are_not_finite_end_their_own_generation_only():
    rig = LoopRig(NotANumberDevice())
    rig.add(1)
    rig.add(2, [4, 5])
    rig.run()
    assert rig.recorder.ends[2].finish_reason is FinishReason.ERROR
    assert "finite" in rig.recorder.ends[2].error
    assert rig.recorder.ends[1].finish_reason is FinishReason.LENGTH


def test_a_text_stream_that_fails_ends_its_own_generation_only_and_the_log_names_its_call(caplog):
    origin = Origin("mine", TraceContext.new())
    rig = LoopRig(FakeDevice())
    rig.add(1)
    rig.add(2, origin=origin)
    [*rig.scheduler.waiting][1].text = BrokenText()
    rig.run()
    assert rig.recorder.ends[2].finish_reason is FinishReason.ERROR
    assert rig.recorder.tokens[1] == fake_answer([5, 6, 7], 8)
    (record,) = caplog.records
    assert record.fields == origin.log_fields()


def test_a_seed_gives_the_same_answer_whatever_else_is_running():
    alone = LoopRig(FakeDevice())
    alone.add(1, max_tokens=40, sampling=hot(seed=11, temperature=2.0))
    alone.run()
    crowd = LoopRig(FakeDevice())
    for i in range(2, 9):
        crowd.add(i, [i] * i, max_tokens=5 * i, sampling=hot(seed=i, temperature=2.0))
        crowd.step()
    crowd.add(1, max_tokens=40, sampling=hot(seed=11, temperature=2.0))
    crowd.run()
    assert crowd.recorder.tokens[1] == alone.recorder.tokens[1]
    assert len(set(alone.recorder.tokens[1])) > 20
