"""Our own products of float32: against their arithmetic, to the bit in any company, and beside ONNX Runtime's."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.kernels.float_graphs import computed, product, turned, write, write_product
from tests.kernels import needs_kernels, rewritten_graph
from tests.unit.models.onnx_bytes import field, node
from tidemill_serving.decoder.devices.graph_weights import weights_of
from tidemill_serving.decoder.devices.ort_session import SessionSettings, open_session, runtime_name, save_prepared
from tidemill_serving.native.library import choose_kernels, find_kernels
from tidemill_serving.start_cache.prepared import PreparedGraph

pytestmark = needs_kernels


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def summed_in_order(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One rounding for each of the depth, from first to last, as float_product.h says."""
    total = np.zeros((len(rows), weights.shape[1]), np.float32)
    for k, weight in enumerate(weights.astype(np.float64)):
        total = (rows[:, k, None].astype(np.float64) * weight + total).astype(np.float32)
    return total


@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_a_float_product_is_what_its_arithmetic_says(data: st.DataObject, seed: int, tmp_path: Path) -> None:
    depth, width = data.draw(st.integers(1, 1200)), data.draw(st.integers(1, 70))
    rows = numbers(seed, data.draw(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 97, 200])), depth)
    weights = numbers(seed + 1, depth, width)
    got = computed(write_product(tmp_path / "product.onnx", weights), "own", num_threads=2)(rows)
    wanted = summed_in_order(rows, weights)
    # A double rounds twice where fma rounds once: hardly ever otherwise, and then by the last bit of a sum.
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-7 * np.abs(rows).max() * np.abs(weights).sum(0).max())
    assert (got == wanted).mean() > 0.99


@pytest.mark.parametrize(("depth", "width"), [(768, 200), (1100, 33), (5, 16), (513, 1000)])
def test_a_row_of_floats_is_the_same_to_the_bit_alone_and_in_any_company(
    depth: int, width: int, tmp_path: Path
) -> None:
    graph, rows = write_product(tmp_path / "product.onnx", numbers(1, depth, width)), numbers(2, 205, depth)
    alone, on_two_threads = computed(graph, "own"), computed(graph, "own", num_threads=2)
    whole = alone(rows)
    assert np.array_equal(on_two_threads(rows), whole)
    for first, end in ((0, 1), (0, 2), (1, 5), (3, 10), (94, 98), (204, 205), (1, 205)):
        assert np.array_equal(alone(rows[first:end]), whole[first:end])
        assert np.array_equal(on_two_threads(rows[first:end]), whole[first:end])


def test_what_is_no_number_passes_through_in_its_row_and_column_alone(tmp_path: Path) -> None:
    weights, rows = numbers(3, 600, 40), numbers(4, 9, 600)
    plain = computed(write_product(tmp_path / "plain.onnx", weights), "own")(rows)
    rows[2, 50], rows[4, 599], weights[7, 39] = np.nan, np.inf, -np.inf
    got = computed(write_product(tmp_path / "product.onnx", weights), "own")(rows)
    assert np.isnan(got[2]).all()
    assert np.array_equal(got[4, :39], np.sign(weights[599, :39]) * np.inf)
    assert not np.isfinite(got[:, 39]).any()
    others = [row for row in range(9) if row not in (2, 4)]
    assert np.array_equal(got[others, :39], plain[others, :39])


def test_no_rows_are_no_trouble(tmp_path: Path) -> None:
    graph = write_product(tmp_path / "product.onnx", numbers(5, 64, 20))
    assert computed(graph, "own")(np.zeros((0, 64), np.float32)).shape == (0, 20)
    assert not computed(graph, "own")(np.zeros((3, 64), np.float32)).any()


def test_ours_and_onnx_runtimes_differ_by_rounding_alone(tmp_path: Path) -> None:
    graph, rows = write_product(tmp_path / "product.onnx", numbers(6, 768, 300)), numbers(7, 40, 768)
    ours, theirs = computed(graph, "own")(rows), computed(graph, "stock")(rows)
    assert rewritten_graph(graph, find_kernels()) is not None
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_an_embedding_that_is_the_head_too_is_read_and_multiplied_with(tmp_path: Path) -> None:
    table, ids = numbers(8, 50, 33), np.array([3, 49, 0, 3])
    gather = node("Gather", ("table", "ids")) + field(2, "rows")
    nodes = [gather, turned("table", "head"), product("rows", "head", "product")]
    graph = write(tmp_path / "tied.onnx", nodes, {"table": table}, 0, ["n", 50])
    rewritten = rewritten_graph(graph, find_kernels())
    assert b"Transpose" not in rewritten.model
    assert len(rewritten.weights) == 1
    np.testing.assert_array_equal(computed(graph, "own")(ids), summed_in_order(table[ids], table.T).astype(np.float32))


def test_a_turned_matrix_that_somebody_else_reads_stays(tmp_path: Path) -> None:
    weights, rows = numbers(9, 33, 33), numbers(10, 4, 33)
    nodes = [
        turned("weights", "turned"),
        product("rows", "turned", "first"),
        product("first", "weights", "second"),
        node("MatMul", ("turned", "turned")) + field(2, "third"),
        node("Add", ("second", "offset")) + field(2, "product"),
        node("ReduceSum", ("third",)) + field(2, "offset"),
    ]
    nodes[4], nodes[5] = nodes[5], nodes[4]
    graph = write(tmp_path / "turned.onnx", nodes, {"weights": weights}, 33, ["n", 33])
    assert sorted(rewritten_graph(graph, find_kernels()).weights) == [
        "packed weights 33x33",
        "packed weights 33x33 turned",
    ]
    wanted = rows.astype(np.float64) @ weights.T @ weights + (weights.T.astype(np.float64) @ weights.T).sum()
    np.testing.assert_allclose(computed(graph, "own")(rows), wanted, rtol=0, atol=1e-3)


def test_products_that_are_part_of_written_out_attention_or_have_no_constant_matrix_stay(tmp_path: Path) -> None:
    weights = numbers(11, 16, 16)
    written_out = [product("rows", "weights", "scores"), node("Softmax", ("scores",)) + field(2, "product")]
    graph = write(tmp_path / "softmax.onnx", written_out, {"weights": weights}, 16, ["n", 16])
    assert rewritten_graph(graph, find_kernels()) is None
    stacked = write(
        tmp_path / "stacked.onnx", [product("rows", "weights", "product")], {"weights": weights[None]}, 16, [1, "n", 16]
    )
    assert rewritten_graph(stacked, find_kernels()) is None


def test_a_saved_graph_keeps_its_packed_floats_and_answers_to_the_bit_as_before(tmp_path: Path) -> None:
    graph, own = write_product(tmp_path / "product.onnx", numbers(12, 256, 300)), SessionSettings(1, False, "own")
    copy = PreparedGraph(tmp_path, "copy")
    copy.graph.parent.mkdir()
    save_prepared(graph, copy.graph.parent, own)
    copy.seal()
    (packed,) = weights_of(copy.graph.read_bytes(), copy.graph.parent).arrays.values()
    assert packed.size == 256 * 304 * 4
    rows = numbers(13, 5, 256)
    again = open_session(graph, own, copy).run(["product"], {"rows": rows})[0]
    assert np.array_equal(again, computed(graph, "own")(rows))


def test_where_onnx_runtimes_float_products_are_faster_they_stay_unless_ours_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = find_kernels()
    monkeypatch.setattr(kernels, "is_faster_here", True)
    monkeypatch.setattr(kernels, "floats_are_faster_here", False)
    graph = write_product(tmp_path / "product.onnx", numbers(14, 16, 16))
    assert rewritten_graph(graph, choose_kernels("auto")) is None
    assert rewritten_graph(graph, choose_kernels("own")) is not None
    assert runtime_name("auto") != runtime_name("own")
