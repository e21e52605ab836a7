"""The device for a GPU on a GPU. Skipped, and saying so, where there is none; `pytest -m gpu` runs these alone."""

from dataclasses import replace

import numpy as np
import pytest

from tests.integration.decoder.models import GRAPHS, TINY, reference
from tests.integration.decoder.processor_as_gpu import WholeRows, cuda_on_processor
from tests.unit.decoder.recorder import LoopRig, hot
from tidemill_serving.decoder.devices.accelerator import nvidia_gpu
from tidemill_serving.decoder.devices.cuda import CudaDevice
from tidemill_serving.decoder.devices.device import ModelRefusedError
from tidemill_serving.decoder.sequence import Limits

pytestmark = pytest.mark.gpu
CASES = reference()[1]
FP16 = GRAPHS / "tiny-llama-fp16.onnx"


@pytest.fixture(autouse=True)
def gpu():
    try:
        nvidia_gpu().memory.close()
    except ModelRefusedError as error:
        pytest.skip(f"NO GPU WAS TRIED: {error}")


class OnGpu(WholeRows):
    def __init__(self, *, records=True):
        super().__init__()
        self._open_accelerator = lambda: replace(nvidia_gpu(), records=records)


def loaded(device, num_slots=8):
    device.load(FP16, num_slots=num_slots, context_length=600, on_progress=lambda progress: None)
    return device


def crowd(device, num_rows):
    """Prompts in the first slots, and the logits of three steps behind them."""
    prompts = [np.array(CASES[i].prompt) for i in (3, 8, 12, 16, 20, 22, 24)[:num_rows]]
    for slot, prompt in enumerate(prompts):
        device.extend(slot, prompt, 0)
    past = np.array([len(prompt) for prompt in prompts])
    return np.array([device.decode(np.full(num_rows, 9 + step), past + step) for step in range(3)])


def close(one, other):
    cosine = (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
    return cosine.min() > 0.999


@pytest.mark.parametrize("num_rows", [1, 3, 5, 7])
def test_a_recorded_run_gives_what_the_processor_gives(num_rows):
    device = loaded(OnGpu())
    assert device._recorded_sizes, "runs were not recorded"
    assert close(crowd(device, num_rows), crowd(loaded(WholeRows()), num_rows))


def test_a_recorded_run_gives_what_an_unrecorded_one_gives():
    assert close(crowd(loaded(OnGpu()), 4), crowd(loaded(OnGpu(records=False)), 4))


def test_slots_are_copied_within_the_gpu_and_to_the_host_as_they_are():
    device = loaded(OnGpu())
    prompt = np.array(CASES[24].prompt)
    device.extend(0, prompt, 0)
    stayed = device.extend(0, np.array([9]), len(prompt))
    device.move(0, 3, len(prompt))
    device.copy_in(5, device.copy_out(0, len(prompt)))
    for slot in (3, 5):
        assert np.array_equal(device.extend(slot, np.array([9]), len(prompt)), stayed)


def test_rows_that_fill_a_batch_up_leave_other_slots_as_they_were():
    device = loaded(OnGpu())
    for slot in range(8):
        device.extend(slot, np.array(CASES[12].prompt), 0)
    before = device.copy_out(6, len(CASES[12].prompt))
    device.decode(np.full(5, 9), np.full(5, len(CASES[12].prompt)))
    for kept, now in zip(before, device.copy_out(6, len(CASES[12].prompt)), strict=True):
        assert np.array_equal(kept, now)


def test_answers_with_every_option_are_made_together():
    wishes = [hot(1), hot(2, top_p=0.7), hot(3, top_k=5), hot(4, min_p=0.2), hot(5, repetition_penalty=1.2)]

    def rig():
        return LoopRig(CudaDevice(), graph=FP16, limits=Limits(600, frozenset()), num_slots=5)

    together = rig()
    for number, sampling in enumerate(wishes):
        together.add(number, CASES[9].prompt, 12, sampling=sampling, num_logprobs=3)
    together.run()
    assert all(len(together.recorder.tokens[number]) == 12 for number in range(len(wishes)))


def test_a_float32_cache_is_refused():
    with pytest.raises(ModelRefusedError, match="for which a GPU has no GroupQueryAttention"):
        CudaDevice().load(TINY / "model.onnx", num_slots=2, context_length=64, on_progress=lambda progress: None)


def test_the_greedy_answer_is_the_processors():
    answers = []
    for device in (CudaDevice(), cuda_on_processor()):
        rig = LoopRig(device, graph=FP16, limits=Limits(600, frozenset({2})), num_slots=4, max_chunk_length=64)
        rig.add(1, CASES[24].prompt, 4)
        rig.run()
        answers.append(rig.recorder.tokens[1][0])
    assert answers[0] == answers[1]
