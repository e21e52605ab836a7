"""With our own kernels a token is computed alike as a prompt's and as an answer's."""

import numpy as np
import pytest

from tests.integration.decoder.models import GRAPHS, TINY, reference
from tests.unit.native.conftest import needs_kernels
from tidemill_serving.decoder.devices.cpu import CpuDevice

pytestmark = needs_kernels

PROMPT = np.array(reference()[1][31].prompt[:200])
OTHERS = np.array([7, 400])  # tokens before in the slots beside


@pytest.mark.parametrize(
    "graph", [GRAPHS / "tiny-llama-int8.onnx", GRAPHS / "tiny-llama-int4.onnx", TINY / "model.onnx"], ids=str
)
@pytest.mark.parametrize("num_threads", [1, 2])
def test_what_is_generated_token_by_token_is_equal_bit_by_bit_to_the_same_as_a_prompt(graph, num_threads):
    device = CpuDevice(num_threads=num_threads, spinning=False, kernels="own")
    device.load(graph, num_slots=4, context_length=512, on_progress=lambda progress: None)
    whole = [device.extend(3, PROMPT[:end], 0).copy() for end in range(120, 200)]
    device.extend(2, PROMPT[:119], 0)
    for end in range(120, 200):
        rows = device.decode(np.array([1, 2, PROMPT[end - 1]]), np.array([*OTHERS, end - 1]))
        assert np.array_equal(rows[2], whole[end - 120]), end
    device.extend(1, PROMPT[:150], 0)
    for end in range(151, 160):  # pieces of one token
        assert np.array_equal(device.extend(1, PROMPT[end - 1 : end], end - 1), whole[end - 120])
    device.close()
