"""The device for a GPU, run on the processor: what it takes and refuses, and answers through the engine's loop."""

from dataclasses import replace

import numpy as np
import pytest

from tests import growing_graph
from tests.integration.decoder.models import GRAPHS, POSITIONS, TINY, reference
from tests.integration.decoder.processor_as_gpu import WholeRows, cuda_on_processor
from tests.unit.decoder.integrity import check_slots
from tests.unit.decoder.recorder import LoopRig, Recorder, hot
from tidemill_serving.decoder.devices.accelerator import nvidia_gpu, processor
from tidemill_serving.decoder.devices.buckets import NO_RECORDING
from tidemill_serving.decoder.devices.cuda import CudaDevice
from tidemill_serving.decoder.devices.device import DeviceError, ModelRefusedError
from tidemill_serving.decoder.sequence import Limits
from tidemill_serving.package_engine import engine_for
from tidemill_serving.settings import ReplicaSettings
from tidemill_serving.start_times import StartTimes

CASES = reference()[1]
FP32 = TINY / "model.onnx"


def loaded(device, graph=FP32, num_slots=4, context_length=600):
    device.load(graph, num_slots=num_slots, context_length=context_length, on_progress=lambda progress: None)
    return device


def tokens(*token_ids):
    return np.array(token_ids, np.int64)


@pytest.mark.parametrize("graph", [FP32, POSITIONS / "model.onnx"], ids=["standard", "positions"])
def test_a_crowd_gets_hugging_faces_answers(graph):
    rig = LoopRig(
        cuda_on_processor(), graph=graph, limits=Limits(640, frozenset({2})), num_slots=5, max_chunk_length=64
    )
    chosen = [case for case in CASES if len(case.prompt) + len(case.tokens) < 300][:12]
    for number, case in enumerate(chosen):
        rig.add(number, case.prompt, reference()[0])
    rig.run()
    assert [rig.recorder.tokens[number] for number in range(len(chosen))] == [case.tokens for case in chosen]
    check_slots(rig.scheduler)


def test_an_answer_with_every_option_is_made_beside_others():
    wishes = [
        hot(1),
        hot(2, top_p=0.7),
        hot(3, top_k=5),
        hot(4, min_p=0.2),
        hot(5, repetition_penalty=1.2, logit_bias=((9, 4.0),)),
    ]
    alone = {}
    for number, sampling in enumerate(wishes):
        rig = LoopRig(cuda_on_processor(), graph=FP32, limits=Limits(640, frozenset()), num_slots=5)
        rig.add(number, CASES[9].prompt, 12, sampling=sampling, num_logprobs=3)
        rig.run()
        alone[number] = rig.recorder.tokens[number]
    rig = LoopRig(cuda_on_processor(), graph=FP32, limits=Limits(640, frozenset()), num_slots=5)
    for number, sampling in enumerate(wishes):
        rig.add(number, CASES[9].prompt, 12, sampling=sampling, num_logprobs=3)
    rig.run()
    assert rig.recorder.tokens == alone


def test_rows_that_fill_a_batch_up_leave_what_other_slots_hold_as_it_was():
    device = loaded(WholeRows(), num_slots=8)
    prompts = [np.array(CASES[i].prompt) for i in (3, 8, 12, 16, 20, 22, 24, 25)]
    for slot, prompt in enumerate(prompts):
        device.extend(slot, prompt, 0)
    before = [device.copy_out(slot, len(prompt)) for slot, prompt in enumerate(prompts)]
    past = np.array([len(prompt) for prompt in prompts])
    for num_rows in (5, 3, 1, 7):  # filled up to 8, 4, 1, 8
        device.decode(np.full(num_rows, 9), past[:num_rows])
    for slot, prompt in enumerate(prompts):
        for kept, now in zip(before[slot], device.copy_out(slot, len(prompt)), strict=True):
            assert np.array_equal(kept, now)


@pytest.mark.parametrize("way", ["moved", "brought back"])
def test_rows_that_fill_a_batch_up_spare_what_was_copied_into_a_slot(way):
    device = loaded(WholeRows(), num_slots=4)
    prompt = np.array(CASES[24].prompt)
    device.extend(0, prompt, 0)
    before = device.copy_out(0, len(prompt))
    if way == "moved":
        device.move(0, 3, len(prompt))
    else:
        device.copy_in(3, before)
    device.decode(np.full(3, 9), np.full(3, 1))
    assert all(np.array_equal(kept, now) for kept, now in zip(before, device.copy_out(3, len(prompt)), strict=True))


def test_a_full_slot_behind_a_batch_is_not_written_to():
    device = loaded(WholeRows(), num_slots=4, context_length=64)
    device.extend(3, np.arange(64) + 5, 0)
    before = device.copy_out(3, 64)
    for slot in range(3):
        device.extend(slot, tokens(7, 8, 9), 0)
    device.decode(tokens(5, 6, 7), tokens(3, 3, 3))
    assert all(np.array_equal(kept, now) for kept, now in zip(before, device.copy_out(3, 64), strict=True))


def test_each_size_is_recorded_once_and_runs_with_a_past_of_several_tokens_never():
    used = []

    class Watched(WholeRows):
        def _run(self, binding, recording):
            used.append(recording)
            super()._run(binding, recording)

    device = loaded(Watched(), num_slots=6)
    assert [recording for recording in used if recording != NO_RECORDING] == [1, 2, 4, 6]
    used.clear()
    for slot in range(5):
        device.extend(slot, tokens(7, 8, 9), 0)
    device.decode(tokens(1, 2, 3, 4, 5), np.full(5, 3))
    device.decode(tokens(1, 2), np.full(2, 4))
    assert used == [NO_RECORDING] * 5 + [6, 2]


def test_a_graph_that_cannot_be_recorded_runs_without():
    accelerator = processor()

    class Unrecordable:
        def __getattr__(self, name):
            return getattr(accelerator, name)

        def open_session(self, graph, *, records):
            if records:
                raise ModelRefusedError("a part of it runs elsewhere")
            return accelerator.open_session(graph, records=records)

    device = CudaDevice(Unrecordable)
    loaded(device)
    device.extend(0, tokens(7, 8, 9), 0)
    assert len(device.decode(tokens(5), tokens(3))) == 1
    assert device._recorded_sizes == ()


def test_a_mask_of_sums_is_only_used_where_it_means_the_same_to_the_graph():
    device = loaded(WholeRows())
    assert device._buffers.mask_is_sum
    prompt = np.array(CASES[20].prompt)
    device.extend(0, prompt, 0)
    by_sums = device.decode(tokens(9), tokens(len(prompt)))
    device._buffers.mask_is_sum = False
    assert np.array_equal(device.decode(tokens(9), tokens(len(prompt))), by_sums)


def test_a_cache_without_a_kernel_on_a_gpu_is_refused_with_the_export_that_has_one():
    device = CudaDevice(lambda: replace(processor(), cache_types=frozenset({np.float16})))
    with pytest.raises(ModelRefusedError, match=r"the cache is float32, for which a GPU has no .*-p fp16"):
        loaded(device)
    device.close()
    loaded(
        CudaDevice(lambda: replace(processor(), cache_types=frozenset({np.float16}))), GRAPHS / "tiny-llama-fp16.onnx"
    )


def test_a_cache_that_is_larger_than_the_memory_is_refused():
    with pytest.raises(ModelRefusedError, match=r"the cache of 400 slots of 1024 tokens takes .* such slots would fit"):
        loaded(CudaDevice(lambda: processor(64 << 20)), num_slots=400, context_length=1024)


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (GRAPHS / "growing-cache.onnx", "does not append to a cache of 600 tokens in place"),
        (GRAPHS / "none.onnx", r"the graph none\.onnx is missing"),
    ],
)
def test_a_graph_that_cannot_run_is_refused(graph, sentence):
    with pytest.raises(ModelRefusedError, match=sentence):
        loaded(cuda_on_processor(), graph)


def test_a_context_beyond_what_the_graph_was_made_for_is_refused():
    with pytest.raises(ModelRefusedError, match="does not append to a cache of 1025 tokens"):
        loaded(cuda_on_processor(), context_length=1025)


def test_a_closed_device_gives_all_its_memory_back():
    accelerator = processor()
    free = accelerator.memory.num_free_bytes()
    device = loaded(CudaDevice(lambda: accelerator))
    assert accelerator.memory.num_free_bytes() < free
    device.extend(0, tokens(7, 8, 9), 0)
    device.close()
    assert accelerator.memory.num_free_bytes() == free
    device.close()


def test_a_run_that_fails_is_told_and_hurts_nothing():
    device = loaded(WholeRows())
    before = device.extend(0, tokens(5, 6, 7), 0).copy()
    with pytest.raises(DeviceError):
        device.decode(tokens(5, 600), tokens(1, 1))
    assert np.array_equal(device.extend(0, tokens(5, 6, 7), 0), before)


def engine_phase(package):
    """How a replica that was told to run on a GPU fares with a package."""
    engine, recorder = engine_for(ReplicaSettings(package, "0" * 64, device="cuda"), StartTimes()), Recorder()
    engine.start(recorder)
    recorder.wait_until_settled()
    engine.close()
    return recorder.phases[-1][2]


def test_a_package_that_grows_its_cache_is_refused_with_the_device_that_runs_it(tmp_path):
    package = growing_graph.write_growing_package(tmp_path / "slow", growing_graph.KINDS["positions told"])
    assert "decoder.cache: the graph grows its cache, which only `--device cpu` runs" in engine_phase(package)


def test_without_a_gpu_or_its_package_a_model_is_refused_in_a_sentence():
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("the onnxruntime that is installed has CUDA")
    with pytest.raises(ModelRefusedError, match=r"has no CUDA.*tidemill\[gpu\]"):
        loaded(CudaDevice(nvidia_gpu))
    assert "The model cannot be served: this ONNX Runtime has no CUDA" in engine_phase(TINY)


def test_a_shortlist_that_fails_ends_its_batch_and_the_next_one_runs(monkeypatch):
    device = cuda_on_processor()
    rig = LoopRig(device, graph=FP32, limits=Limits(640, frozenset()), num_slots=2)
    rig.add(1, CASES[9].prompt, 4)
    rig.add(2, CASES[8].prompt, 4)

    def fail(*_):
        raise DeviceError("no room")

    with monkeypatch.context() as broken:
        broken.setattr(device._head, "shortlist", fail)
        rig.run()
    assert [rig.recorder.ends[number].error for number in (1, 2)] == ["the model's run failed: no room"] * 2
    assert rig.loop.failure == ""
    rig.add(3, CASES[9].prompt, len(CASES[9].tokens))
    rig.run()
    assert rig.recorder.tokens[3] == CASES[9].tokens
