"""What every device keeps, with every kind of graph that it serves."""

from functools import partial

import numpy as np
import pytest

from tests import growing_graph
from tests.integration.decoder.models import GRAPHS, POSITIONS, TINY, reference
from tests.integration.decoder.processor_as_gpu import WholeRows
from tidemill_serving.decoder.devices.cpu import CpuDevice
from tidemill_serving.decoder.devices.device import DeviceError
from tidemill_serving.decoder.devices.fake import FakeDevice
from tidemill_serving.decoder.devices.growing import GrowingCacheDevice

CASES = reference()[1]
CUDA_GRAPHS = {
    "fp32": TINY / "model.onnx",
    "positions": POSITIONS / "model.onnx",
    "int8": GRAPHS / "tiny-llama-int8.onnx",
    "fp16": GRAPHS / "tiny-llama-fp16.onnx",
}
KINDS = {
    "fake": None,
    "fp32": TINY / "model.onnx",
    "positions": POSITIONS / "model.onnx",
    "int8": GRAPHS / "tiny-llama-int8.onnx",
    **{f"cuda, {name}": graph for name, graph in CUDA_GRAPHS.items()},
    **{f"growing, {name}": kind for name, kind in growing_graph.KINDS.items() if not kind.is_quantised},
}
CLOSE = {"rtol": 0, "atol": 2e-4}  # logits
SMALL_CONTEXT = 64


@pytest.fixture(params=KINDS)
def make(request, tmp_path):
    """Makes a loaded device of one kind."""
    graph, grows = KINDS[request.param], isinstance(KINDS[request.param], growing_graph.Kind)
    if grows:
        graph = growing_graph.write_growing_graph(tmp_path / "model.onnx", graph)
    real = partial(GrowingCacheDevice if grows else CpuDevice, num_threads=1, spinning=False)
    if request.param.startswith("cuda"):
        real = WholeRows

    def loaded(num_slots=4, context_length=600):
        device = FakeDevice() if graph is None else real()
        progress = []
        vocab_size = device.load(graph, num_slots=num_slots, context_length=context_length, on_progress=progress.append)
        assert vocab_size == 512
        assert progress == sorted(progress)
        assert progress[-1] == 1.0
        return device

    return loaded


def tokens(*token_ids):
    return np.array(token_ids, np.int64)


def answer(device, slot, prompt, num_tokens):
    """A greedy answer with every run alone, in one slot, as logits [n, V]."""
    logits, past = [device.extend(slot, np.array(prompt), 0).copy()], len(prompt)
    while len(logits) < num_tokens:
        logits.append(device.extend(slot, tokens(logits[-1].argmax()), past).copy())
        past += 1
    return np.array(logits)


@pytest.mark.parametrize(
    "call",
    [
        lambda device: device.decode(tokens(), tokens()),
        lambda device: device.decode(tokens(5, 6, 7), tokens(1, 1, 1)),
        lambda device: device.decode(tokens(5, 6), tokens(1)),
        lambda device: device.decode(tokens(5, 6), tokens(1, SMALL_CONTEXT)),
        lambda device: device.decode(tokens(5, 6), tokens(1, -1)),
        lambda device: device.extend(0, tokens(), 3),
        lambda device: device.extend(0, tokens(5), -1),
        lambda device: device.extend(0, tokens(5, 6), SMALL_CONTEXT - 1),
        lambda device: device.extend(2, tokens(5), 0),
        lambda device: device.extend(-1, tokens(5), 0),
        lambda device: device.extend(0, tokens(5, 512), 0),
        lambda device: device.decode(tokens(5, -513), tokens(1, 1)),
    ],
    ids=[
        "no rows", "too many rows", "lengths missing", "a full row", "a negative row", "no tokens", "a negative past",
        "beyond the cache", "beyond the slots", "before the slots", "an unknown token", "an unknown token in a batch",
    ],
)  # fmt: skip
def test_a_run_that_would_hurt_the_process_or_its_batch_is_refused_before(make, call):
    device = make(num_slots=2, context_length=SMALL_CONTEXT)
    before = device.extend(0, tokens(5, 6, 7), 0).copy()
    with pytest.raises(DeviceError):
        call(device)
    assert (device.extend(0, tokens(5, 6, 7), 0) == before).all()


def test_a_row_is_the_same_alone_and_in_a_batch(make):
    prompts = [CASES[i].prompt for i in (0, 8, 20, 25)]
    alone = [answer(make(num_slots=1), 0, prompt, 12) for prompt in prompts]
    device = make()
    last = np.array([device.extend(slot, np.array(prompt), 0).argmax() for slot, prompt in enumerate(prompts)])
    past = np.array([len(prompt) for prompt in prompts])
    for step in range(1, 12):
        logits = device.decode(last, past)
        for row in range(4):
            np.testing.assert_allclose(logits[row], alone[row][step], **CLOSE)
        last, past = logits.argmax(axis=1), past + 1


def test_a_slot_that_was_copied_out_comes_back_elsewhere_as_it_was(make):
    device = make()
    prompt = np.array(CASES[12].prompt)
    device.extend(0, prompt, 0)
    saved = device.copy_out(0, len(prompt))
    stayed = device.extend(0, tokens(9), len(prompt)).copy()
    device.copy_in(2, saved)
    assert (device.extend(2, tokens(9), len(prompt)) == stayed).all()


@pytest.mark.parametrize("chunk", [2, 3, 16, 100])
def test_a_prompt_in_pieces_gives_the_same_as_the_whole(make, chunk):
    prompt = np.array(CASES[24].prompt)[:180]
    device = make()
    whole = device.extend(0, prompt, 0).copy()
    past = 0
    while past < len(prompt):
        logits = device.extend(1, prompt[past : past + chunk], past)
        past += chunk
    np.testing.assert_allclose(logits, whole, **CLOSE)


def test_a_moved_slot_goes_on_as_if_it_had_stayed(make):
    device = make()
    prompt = np.array(CASES[12].prompt)
    device.extend(3, prompt, 0)
    stayed = device.extend(3, tokens(9), len(prompt)).copy()
    device.extend(1, np.array(CASES[30].prompt), 0)
    device.move(3, 1, len(prompt))
    assert (device.extend(1, tokens(9), len(prompt)) == stayed).all()
