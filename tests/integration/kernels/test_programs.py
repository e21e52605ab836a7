"""Stretches of a graph as one program of ours: what it computes, what it holds, and what splits it."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from tests.kernels import needs_kernels
from tests.program_graphs import PROGRAM, Graph
from tests.unit.models.onnx_bytes import FLOAT, field, model
from tidemill_models.protobuf_wire import WireMessage
from tidemill_serving.decoder.devices.graph_nodes import written_node
from tidemill_serving.decoder.devices.own_kernels import rewritten
from tidemill_serving.native.library import find_kernels

pytestmark = needs_kernels
DEPTH, INNER = 96, 160
TANH = "Tanh"


def rows_of(num_rows: int, width: int = DEPTH, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_rows, width)).astype(np.float32)


def feed_forward(bits: int = 8, block: int = 32, *, as_builder_writes: bool = True) -> Graph:
    """Norm, gated products, product, sum and norm: half a layer."""
    graph = Graph(DEPTH)
    graph.norm("rows", "first", DEPTH)
    graph.product("first", "gate", DEPTH, INNER, bits=bits, block=block)
    graph.product("first", "up", DEPTH, INNER, bits=bits, block=block)
    graph.gate("gate", "up", "inner", as_builder_writes=as_builder_writes)
    graph.product("inner", "down", INNER, DEPTH, bits=bits, block=block)
    graph.norm("rows", "last", DEPTH, skip="down", total="sum")
    graph.product("last", "logits", DEPTH, 50, bits=bits, block=block)
    graph.give("logits", 50)
    graph.give("sum", DEPTH)
    return graph


def normalized(rows: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    return wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * gamma


@pytest.mark.parametrize("as_builder_writes", [True, False])
@pytest.mark.parametrize(("bits", "block"), [(8, 32), (4, 32), (8, 64), (8, 128), (8, 256)])
def test_half_a_layer_is_one_program_and_says_what_onnx_runtime_says(
    bits: int, block: int, as_builder_writes: bool
) -> None:
    graph = feed_forward(bits, block, as_builder_writes=as_builder_writes)
    assert graph.kinds() == [PROGRAM]
    ours, theirs = graph.run(rows_of(9)), graph.run(rows_of(9), own=False)
    for name, found in ours.items():
        assert np.abs(found - theirs[name]).max() < 0.03 * np.abs(theirs[name]).max()


def test_weights_are_packed_the_same_by_any_number_of_threads() -> None:
    content = feed_forward().content()
    graph = WireMessage(content, 0, len(content))
    alone, *others = (rewritten(graph, Path(), find_kernels(), num_threads) for num_threads in (1, 2, 5, 0))
    for each in (alone, *others):
        each.packing.wait()
    for other in others:
        assert other.model == alone.model
        for name, packed in alone.weights.items():
            np.testing.assert_array_equal(other.weights[name], packed)


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_a_row_is_the_same_to_the_bit_in_any_company_and_on_any_threads(num_threads: int) -> None:
    rows = rows_of(700)  # more than go through the program together
    whole = feed_forward().run(rows, num_threads=num_threads)
    for first, end in ((0, 1), (3, 10), (510, 514), (699, 700)):
        part = feed_forward().run(rows[first:end], num_threads=2)
        for name, found in part.items():
            assert np.array_equal(found, whole[name][first:end])


@pytest.mark.parametrize("width", [1, 7, 8, 16, 100, 768])
def test_norms_are_what_they_say(width: int) -> None:
    graph = Graph(40)
    graph.product("rows", "one", 40, width)
    graph.product("rows", "other", 40, width)
    gammas = graph.norm("one", "plain", width), graph.norm("one", "skipped", width, skip="other", total="sum")
    for name in ("one", "other", "plain", "skipped", "sum"):
        graph.give(name, width)
    assert graph.kinds() == [PROGRAM]
    found = graph.run(rows_of(5, 40))
    np.testing.assert_array_equal(found["sum"], found["one"] + found["other"])
    np.testing.assert_allclose(found["plain"], normalized(found["one"], gammas[0]), rtol=1e-5)
    np.testing.assert_allclose(found["skipped"], normalized(found["sum"], gammas[1]), rtol=1e-5)


@pytest.mark.parametrize("is_shared", [False, True])
def test_gates_are_what_they_say_however_far_from_zero(is_shared: bool) -> None:
    """Where a product is given out as well, its gate is a step of its own: the same numbers."""
    graph = Graph(40)
    for name in ("gate", "up"):
        graph.product("rows", name, 40, 37)
    graph.gate("gate", "up", "inner")
    graph.give("inner", 37)
    plain = graph.run(rows_of(6, 40) * 300)["inner"]
    graph.give("gate", 37)
    graph.give("up", 37)
    found = graph.run(rows_of(6, 40) * 300)
    np.testing.assert_array_equal(found["inner"], plain)
    gate = found["gate"].astype(np.float64)
    with np.errstate(over="ignore"):
        wanted = gate / (1 + np.exp(-gate)) * found["up"]
    np.testing.assert_allclose(plain, wanted, rtol=1e-5, atol=1e-30)
    bad = rows_of(3, 40)
    bad[1, 3] = np.nan
    assert np.isnan(graph.run(bad)["inner"][1]).all()
    assert not np.isnan(np.delete(graph.run(bad)["inner"], 1, 0)).any()


def test_a_constant_that_is_added_to_a_product_is_its_bias() -> None:
    graph = Graph(64)
    bias = rows_of(1, 33)[0]
    graph.product("rows", "one", 64, 33)
    graph.constant("bias", bias)
    graph.add("Add", ("bias", "one"), ("biased",))
    graph.give("biased", 33)
    assert graph.kinds() == [PROGRAM]
    biased = graph.run(rows_of(70, 64))["biased"]
    graph.give("one", 33)
    assert graph.kinds() == [PROGRAM, "Add"]
    assert np.array_equal(graph.run(rows_of(70, 64))["one"] + bias, biased)


def test_what_no_step_is_known_for_splits_a_program_and_what_waits_for_it_comes_behind() -> None:
    graph = Graph(64)
    graph.product("rows", "one", 64, 64)
    graph.add(TANH, ("one",), ("bent",))
    graph.product("one", "two", 64, 64)  # goes on beside what is bent
    graph.add("Sigmoid", ("rows",), ("outside",))  # waits for nothing
    graph.product("bent", "three", 64, 64)  # needs what waits
    graph.norm("three", "last", 64, skip="two")
    for name in ("last", "outside"):
        graph.give(name, 64)
    assert graph.kinds() == ["Sigmoid", PROGRAM, TANH, PROGRAM]
    ours, theirs = graph.run(rows_of(4, 64)), graph.run(rows_of(4, 64), own=False)
    assert np.abs(ours["last"] - theirs["last"]).max() < 0.05 * np.abs(theirs["last"]).max()


def test_products_of_other_rows_are_programs_of_their_own() -> None:
    graph = Graph(64)
    graph.inputs["others"] = (FLOAT, ["m", 64])
    graph.product("rows", "one", 64, 16)
    graph.product("others", "two", 64, 16)
    graph.give("one", 16)
    graph.outputs["two"] = (FLOAT, ["m", 16])
    assert graph.kinds() == [PROGRAM, PROGRAM]


def test_norms_and_gates_alone_stay_what_they_are() -> None:
    graph = Graph(64)
    graph.norm("rows", "one", 64)
    graph.gate("one", "rows", "two")
    graph.give("two", 64)
    assert graph.kinds() == []


def test_weights_that_something_else_reads_too_are_kept() -> None:
    graph = Graph(64)
    graph.product("rows", "one", 64, 16)
    graph.add("Shape", ("one values",), ("size",))
    graph.give("one", 16)
    graph.outputs["size"] = (7, [3])
    assert graph.run(rows_of(2, 64))["size"].tolist() == [16, 2, 32]


def test_no_rows_are_no_trouble() -> None:
    found = feed_forward().run(rows_of(0))
    assert found["logits"].shape == (0, 50)
    assert found["sum"].shape == (0, DEPTH)


NORM_STEP = [1, 2, -1, -1, 0, 1, *[-1] * 7, 8, 0, -1, -1, -1]


def session_of_program(tmp_path: Path, steps: list[int], *, outputs: list[int], inputs: int = 2, version: int) -> None:
    attributes = {"inputs": inputs, "steps": steps, "outputs": outputs, "version": version}
    content = written_node("tidemill", "DecoderProgram", "written by hand", ["rows", "more"], ["made"], attributes)
    tensors = {"rows": (FLOAT, ["n", 8]), "more": (FLOAT, [8])}
    opsets = b"".join(field(8, field(1, domain) + field(2, 1)) for domain in ("tidemill",))
    graph = model(tensors, {"made": (FLOAT, ["n", 8])}, [content], rest=opsets + field(8, field(1, "") + field(2, 21)))  # type: ignore[arg-type]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(find_kernels().path))
    ort.InferenceSession(graph, options).run(None, {"rows": rows_of(3, 8), "more": rows_of(1, 8)[0]})


def test_a_program_may_be_written_by_hand(tmp_path: Path) -> None:
    session_of_program(tmp_path, NORM_STEP, outputs=[2], version=find_kernels().version)


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": NORM_STEP[:-1]},
        {"steps": []},
        {"steps": [9, *NORM_STEP[1:]]},
        {"steps": [1, 3, *NORM_STEP[2:]]},  # its output is not the next value
        {"steps": [*NORM_STEP[:4], 5, *NORM_STEP[5:]]},  # reads what is not there
        {"steps": [*NORM_STEP[:4], -1, *NORM_STEP[5:]]},
        {"steps": [*NORM_STEP[:6], 2, *NORM_STEP[7:]]},  # reads what it makes
        {"steps": [*NORM_STEP[:13], 0, *NORM_STEP[14:]]},
        {"steps": [*NORM_STEP[:13], 1 << 40, *NORM_STEP[14:]]},
        {"steps": [*NORM_STEP[:13], 16, *NORM_STEP[14:]]},  # rows and weights are of another width
        {"steps": [2, 2, -1, -1, 0, 1, *[-1] * 7, 8, 8, 8, 32, 0]},  # floats as a packed matrix
        {"steps": [2, 2, -1, -1, 0, 1, *[-1] * 7, 8, 8, 7, 32, 0]},
        {"steps": [3, 2, -1, -1, 0, 1, *[-1] * 7, 8, -1, -1, -1, -1]},  # a gate of another number of rows
        {"steps": [4, 2, 3, 4, 0, -1, -1, 1, 1, 1, 1, -1, -1, 1, 1, 0, 0, 0]},
        {"outputs": [0]},
        {"outputs": [3]},
        {"outputs": [2, 2]},
        {"steps": [1, 2, 3, *NORM_STEP[3:]], "outputs": [3, 2]},  # the node has one output
        {"inputs": 0},
        {"inputs": 1 << 60},
        {"version": 0},
    ],
)
def test_a_program_that_is_wrong_is_refused(changed: dict[str, object], tmp_path: Path) -> None:
    right = {"steps": NORM_STEP, "outputs": [2], "inputs": 2, "version": find_kernels().version}
    with pytest.raises(Exception):  # noqa: B017, PT011 - ONNX Runtime has no common base class
        session_of_program(tmp_path, **(right | changed))  # type: ignore[arg-type]
