"""The table of docs/exactness.md, row by row: what may change an answer in each precision, and what may not."""

from dataclasses import dataclass

import numpy as np
import pytest

from tests.integration.decoder.models import GRAPHS, TINY, reference
from tests.integration.decoder.processor_as_gpu import WholeRows, cuda_on_processor
from tests.kernels import needs_kernels
from tests.unit.decoder.integrity import check_slots
from tests.unit.decoder.recorder import LoopRig, hot
from tidemill_serving.decoder.devices.cpu import CpuDevice
from tidemill_serving.decoder.sequence import Limits

ON_CUDA = "fp32 by the device for a GPU"
GRAPH_OF = {
    "fp32": TINY / "model.onnx",
    "int8, blocks of 32": GRAPHS / "tiny-llama-int8.onnx",
    "int4, blocks of 32": GRAPHS / "tiny-llama-int4.onnx",
    ON_CUDA: TINY / "model.onnx",
}
CASES = reference()[1]
LONG = CASES[31].prompt  # 500 tokens
CONTEXT = 640
NUM_TOKENS = 24


@dataclass
class Replica:
    """A loop on a real graph."""

    graph: str
    kernels: str

    def device(self):
        if self.graph == ON_CUDA:
            return cuda_on_processor()
        return CpuDevice(num_threads=1, spinning=False, kernels=self.kernels)

    def rig(self, **settings):
        wishes = {"limits": Limits(CONTEXT, frozenset()), "max_chunk_length": 512, **settings}
        return LoopRig(self.device(), graph=GRAPH_OF[self.graph], **wishes)

    def answer(self, prompt, *, after=(), beside=(), sampling=None, exact=False, **settings):
        """What is made of a prompt after some others have ended, beside some others."""
        rig = self.rig(**settings)
        fields = {"max_tokens": NUM_TOKENS, "sampling": sampling or hot(None, temperature=0.0)}
        for i, other in enumerate(after):
            rig.add(100 + i, other, **fields)
            rig.run()
        for i, other in enumerate(beside):
            rig.add(200 + i, other, NUM_TOKENS + i)
            rig.step()
        rig.add(1, prompt, exact=exact, **fields)
        rig.run()
        check_slots(rig.scheduler)
        return rig.recorder.tokens[1], rig


@pytest.fixture(
    params=[
        *((name, "stock") for name in GRAPH_OF),
        *(pytest.param((name, "own"), marks=needs_kernels) for name in GRAPH_OF if name != ON_CUDA),
    ],
    ids=" ".join,
)
def replica(request):
    return Replica(*request.param)


@pytest.mark.parametrize("sampling", [None, hot(11, temperature=1.0, top_p=0.95)], ids=["greedy", "seed"])
def test_neighbours_and_joining_do_not_change_an_answer(replica, sampling):
    alone, _ = replica.answer(LONG[:200], sampling=sampling)
    crowd = [CASES[i].prompt for i in (3, 10, 20)]
    assert replica.answer(LONG[:200], beside=crowd, sampling=sampling)[0] == alone


@pytest.mark.parametrize("length", [16, 50, 128])
def test_pieces_of_a_prompt_do_not_change_an_answer(replica, length):
    whole, _ = replica.answer(LONG[:300])
    assert replica.answer(LONG[:300], max_chunk_length=length)[0] == whole


@pytest.mark.parametrize("num_shared", [64, 192, 300])
def test_a_prefix_that_was_a_prompt_does_not_change_an_answer(replica, num_shared):
    cold, _ = replica.answer(LONG[:300])
    warm, rig = replica.answer(LONG[:300], after=[LONG[:num_shared] + LONG[400:420]])
    assert rig.recorder.ends[1].num_cached_prompt_tokens >= min(num_shared // 64 * 64, 298)
    assert warm == cold


def test_a_slot_that_is_saved_and_brought_back_does_not_change_an_answer(replica):
    alone, _ = replica.answer(LONG[:100])
    crowded, rig = replica.answer(
        LONG[:100], beside=[LONG[100:200], LONG[200:300]], token_budget=340, headroom=1, prefix_cache=False
    )
    assert rig.scheduler.num_preemptions > 0
    assert crowded == alone


def test_an_exact_answer_does_not_depend_on_what_was_generated_before(replica):
    turn = [*LONG[:100], *replica.answer(LONG[:100])[0], *LONG[300:400]]
    cold, _ = replica.answer(turn)
    exact, rig = replica.answer(turn, after=[LONG[:100]], exact=True)
    assert exact == cold
    assert rig.recorder.ends[1].num_cached_prompt_tokens in (0, 64, 100)


def test_logits_are_equal_bit_by_bit_where_the_table_says_equal(replica):
    """Tokens may hide what logits show."""
    device = WholeRows() if replica.graph == ON_CUDA else replica.device()
    device.load(GRAPH_OF[replica.graph], num_slots=4, context_length=CONTEXT, on_progress=lambda progress: None)
    prompt = np.array(LONG[:258])
    whole = device.extend(0, prompt, 0).copy()
    device.extend(1, prompt[:256], 0)
    same = (
        (lambda one, other: np.allclose(one, other, rtol=0, atol=2e-4))
        if replica.graph.startswith("fp32") and replica.kernels == "stock"
        else np.array_equal
    )
    assert same(device.extend(1, prompt[256:], 256), whole)
    saved = device.copy_out(1, 258)
    device.copy_in(3, saved)
    device.move(1, 2, 258)
    rows = device.decode(np.full(4, 9), np.array([258, 258, 258, 258]))
    assert np.array_equal(rows[1], rows[2])
    assert np.array_equal(rows[1], rows[3])


@needs_kernels
@pytest.mark.parametrize("graph", [name for name in GRAPH_OF if name != ON_CUDA])
def test_our_own_kernels_make_a_row_of_a_batch_what_it_is_alone(graph):
    """To the bit, on two threads, at any place of any batch: more than ONNX Runtime's kernels promise."""
    device = CpuDevice(num_threads=2, spinning=False, kernels="own")
    device.load(GRAPH_OF[graph], num_slots=9, context_length=64, on_progress=lambda progress: None)
    lengths = np.array([5, 17, 30, 8, 33, 5, 17, 40, 21])
    for slot, length in enumerate(lengths):
        device.extend(slot, np.array(LONG[:length]), 0)
    batch = device.decode(np.arange(9), lengths).copy()
    for slot in range(9):
        device.move(slot, 0, int(lengths[slot]))
        assert np.array_equal(device.decode(np.array([slot]), lengths[slot : slot + 1])[0], batch[slot])


@needs_kernels
@pytest.mark.parametrize("graph", [name for name in GRAPH_OF if name != ON_CUDA])
def test_our_own_kernels_answer_as_onnx_runtimes_do_within_their_precision(graph):
    """Without the library, or with VNNI, the stock ones serve the same file."""
    logits = {}
    for kernels in ("own", "stock"):
        device = CpuDevice(num_threads=1, spinning=False, kernels=kernels)
        device.load(GRAPH_OF[graph], num_slots=1, context_length=300, on_progress=lambda progress: None)
        logits[kernels] = device.extend(0, np.array(LONG[:200]), 0).copy()
    cosine = logits["own"] @ logits["stock"] / np.linalg.norm(logits["own"]) / np.linalg.norm(logits["stock"])
    assert cosine > (0.99999 if graph == "fp32" else 0.995)
