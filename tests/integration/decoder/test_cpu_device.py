"""The device on ONNX Runtime: which graphs it takes."""

import numpy as np
import pytest

from tests.integration.decoder.models import GRAPHS, POSITIONS, TINY, reference
from tests.unit.models import onnx_bytes
from tidemill_serving.decoder.devices.cpu import CpuDevice
from tidemill_serving.decoder.devices.device import ModelRefusedError

CASES = reference()[1]
FP32, FP16 = TINY / "model.onnx", GRAPHS / "tiny-llama-fp16.onnx"


def loaded(graph, num_slots=4, context_length=600):
    device = CpuDevice(num_threads=1, spinning=False)
    progress = []
    vocab_size = device.load(graph, num_slots=num_slots, context_length=context_length, on_progress=progress.append)
    assert vocab_size == 512
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    return device


def tokens(*token_ids):
    return np.array(token_ids, np.int64)


def test_a_missing_graph_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ModelRefusedError, match=r"the graph none\.onnx is missing"):
        loaded(tmp_path / "none.onnx")


@pytest.mark.parametrize("content", [b"", b"not a graph", FP32.read_bytes()[:200_000]])
def test_a_broken_graph_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(ModelRefusedError, match=r"the graph broken\.onnx cannot be loaded|lacks|keeps no cache"):
        loaded(tmp_path / "broken.onnx")


def test_a_graph_in_bfloat16_is_refused_with_where_it_runs(tmp_path):
    halves = {name: (16 if kind[0] == 1 else kind[0], kind[1]) for name, kind in onnx_bytes.decoder_inputs().items()}
    graph = onnx_bytes.model(halves, onnx_bytes.decoder_outputs(), [onnx_bytes.node("MatMul")])
    (tmp_path / "halves.onnx").write_bytes(graph)
    with pytest.raises(
        ModelRefusedError, match=r"halves\.onnx cannot be loaded.*bfloat16 runs on a GPU \(`--device cuda`\)"
    ):
        loaded(tmp_path / "halves.onnx")


def test_a_graph_that_grows_its_cache_is_refused_with_the_command_that_makes_a_better_one():
    with pytest.raises(ModelRefusedError, match=r"grows its cache by concatenation; .*onnxruntime_genai"):
        loaded(GRAPHS / "growing-cache.onnx")


@pytest.mark.parametrize("graph", [FP32, POSITIONS / "model.onnx"], ids=["standard", "positions"])
def test_a_context_beyond_what_the_graph_was_made_for_is_refused(graph):
    loaded(graph, context_length=1024)
    with pytest.raises(ModelRefusedError, match="does not reach a context of 1025 tokens"):
        loaded(graph, context_length=1025)


def answer(device, slot, prompt, num_tokens):
    """A greedy answer with every run alone, in one slot, as logits [n, V]."""
    logits, past = [device.extend(slot, np.array(prompt), 0).copy()], len(prompt)
    while len(logits) < num_tokens:
        logits.append(device.extend(slot, tokens(logits[-1].argmax()), past).copy())
        past += 1
    return np.array(logits)


def test_a_cache_of_half_precision_is_served():
    device = loaded(FP16)
    exact = answer(loaded(FP32), 0, CASES[12].prompt, 8)
    half = answer(device, 0, CASES[12].prompt, 8)
    assert half.dtype == np.float32
    assert (half[0].argmax() == exact[0].argmax()).all()
    cosine = (half[0] @ exact[0]) / np.linalg.norm(half[0]) / np.linalg.norm(exact[0])
    assert cosine > 0.999


def test_a_closed_device_gives_its_memory_back():
    device = loaded(FP32)
    device.extend(0, tokens(5, 6), 0)
    device.close()
    assert not hasattr(device, "_session")
    assert not hasattr(device, "_cache")
    device.close()
