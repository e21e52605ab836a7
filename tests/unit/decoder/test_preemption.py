"""A token budget shorter than all wishes: the youngest gives its slot up, and nothing is computed twice."""

from tests.unit.decoder.integrity import check_integrity
from tests.unit.decoder.recorder import LoopRig
from tidemill_serving.decoder.devices.fake import FakeDevice, fake_answer
from tidemill_serving.engine import FinishReason


def crowded(num_sequences=3, **settings):
    """Sequences of 20 + 60 tokens in a budget of 128."""
    device = FakeDevice()
    rig = LoopRig(device, num_slots=4, token_budget=128, headroom=4, **settings)
    for i in range(num_sequences):
        rig.add(i, [30 + i] * 20, max_tokens=60)
    return rig, device


def run(rig, device):
    preempted = []
    while rig.scheduler.has_work:
        rig.step()
        check_integrity(rig.scheduler, device)
        preempted.append([sequence.request.sequence_id for sequence in rig.scheduler.preempted])
    return preempted


def test_the_youngest_gives_way_and_all_get_their_whole_answers():
    rig, device = crowded()
    preempted = run(rig, device)
    assert rig.scheduler.num_preemptions >= 2
    assert next(ids for ids in preempted if ids) == [2]
    assert all(0 not in ids for ids in preempted), "the oldest never gives way"
    for i in range(3):
        assert rig.recorder.tokens[i] == fake_answer([30 + i] * 20, 60)


def test_nothing_is_computed_twice():
    rig, device = crowded()
    run(rig, device)
    assert rig.loop.counters.num_prefill_tokens == 3 * 20
    assert rig.loop.counters.num_decode_tokens == 3 * 59


def test_whoever_gave_way_comes_back_before_anyone_new():
    rig, device = crowded()
    while not rig.scheduler.preempted:
        rig.step()
    num_made = len(rig.recorder.tokens[2])
    rig.add(3, [9], max_tokens=1)  # it would fit at once
    while 3 not in rig.recorder.tokens:
        rig.step()
    assert len(rig.recorder.tokens[2]) > num_made
    run(rig, device)


def test_one_that_gave_way_can_be_cancelled_and_its_memory_is_let_go():
    rig, device = crowded()
    while not rig.scheduler.preempted:
        rig.step()
    (waiting,) = rig.scheduler.preempted
    assert waiting.saved is not None
    rig.step(waiting.request.sequence_id)
    assert waiting.saved is None
    assert rig.recorder.ends[2].finish_reason is FinishReason.CANCELLED
    run(rig, device)


def test_one_that_could_never_fit_is_refused_and_so_nobody_waits_for_ever():
    rig, device = crowded(num_sequences=0)
    rig.add(1, [5] * 60, max_tokens=68)
    run(rig, device)
    assert rig.recorder.ends[1].num_completion_tokens == 68
