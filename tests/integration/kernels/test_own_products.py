"""Our own quantised products: against their arithmetic, to the bit in any company, and beside ONNX Runtime's."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels import Matrix, expected, needs_kernels, product_of, random_matrix, rewritten_graph, write_graph
from tidemill_serving.decoder.devices.device import ModelRefusedError
from tidemill_serving.decoder.devices.ort_session import SessionSettings, open_session, runtime_name, save_prepared
from tidemill_serving.native import library
from tidemill_serving.native.library import choose_kernels, find_kernels
from tidemill_serving.start_cache.prepared import WEIGHTS, PreparedGraph

pytestmark = needs_kernels
KINDS = [(bits, block, points) for bits in (8, 4) for block in (32, 64, 128, 256) for points in (False, True)]


def rows_of(seed: int, num_rows: int, depth: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return (draw.standard_normal((num_rows, depth)) * 10.0 ** draw.integers(-3, 3)).astype(np.float32)


def built(folder: Path, matrix: Matrix, *, num_threads: int = 1):
    return product_of(write_graph(folder / "product.onnx", matrix), "own", num_threads=num_threads)


@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_a_product_is_what_its_arithmetic_says(data: st.DataObject, seed: int, tmp_path: Path) -> None:
    bits, block, points = data.draw(st.sampled_from(KINDS))
    depth, width = data.draw(st.integers(1, 700)), data.draw(st.integers(1, 70))
    num_rows = data.draw(st.sampled_from([1, 2, 3, 4, 5, 7, 9, 33]))
    matrix = random_matrix(seed, depth, width, bits=bits, block=block, zero_points=points)
    rows = rows_of(seed, num_rows, depth)
    wanted = expected(matrix, rows)
    # A double rounds twice where fma rounds once: hardly ever otherwise, and then by the last bit.
    np.testing.assert_allclose(built(tmp_path, matrix)(rows), wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize(("bits", "block", "points"), KINDS)
def test_a_row_is_the_same_to_the_bit_alone_and_in_any_company(
    bits: int, block: int, points: bool, tmp_path: Path
) -> None:
    matrix = random_matrix(7, 520, 1000, bits=bits, block=block, zero_points=points)
    rows = rows_of(8, 150, 520)
    product, on_two_threads = built(tmp_path, matrix), built(tmp_path, matrix, num_threads=2)
    whole = product(rows)
    assert np.array_equal(on_two_threads(rows), whole)
    for first, end in ((0, 1), (0, 2), (3, 10), (63, 66), (149, 150), (1, 150)):
        assert np.array_equal(product(rows[first:end]), whole[first:end])
        assert np.array_equal(on_two_threads(rows[first:end]), whole[first:end])


def test_many_rows_are_the_same_as_each(tmp_path: Path) -> None:
    matrix = random_matrix(1, 64, 33, bits=8, block=32, zero_points=False)
    rows = rows_of(2, 1100, 64)  # more than are brought to 8 bits at once
    product = built(tmp_path, matrix, num_threads=2)
    assert np.array_equal(product(rows), np.concatenate([product(rows[i : i + 50]) for i in range(0, 1100, 50)]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_with_what_is_no_number_gives_nan_and_leaves_its_neighbours_alone(bad: float, tmp_path: Path) -> None:
    matrix = random_matrix(3, 96, 40, bits=8, block=32, zero_points=True)
    rows = rows_of(4, 6, 96)
    product = built(tmp_path, matrix)
    wanted = product(rows)
    rows[2, 50] = bad
    got = product(rows)
    assert np.isnan(got[2]).all()
    assert np.array_equal(np.delete(got, 2, 0), np.delete(wanted, 2, 0))


def test_no_rows_rows_of_zeros_and_the_smallest_numbers_are_no_trouble(tmp_path: Path) -> None:
    product = built(tmp_path, random_matrix(5, 64, 20, bits=4, block=32, zero_points=True))
    assert product(np.zeros((0, 64), np.float32)).shape == (0, 20)
    assert not product(np.zeros((3, 64), np.float32)).any()
    assert not product(np.full((3, 64), 1e-40, np.float32)).any()
    assert np.isfinite(product(np.full((1, 64), 1e30, np.float32))).all()


@pytest.mark.parametrize(("bits", "block", "points"), [(8, 32, False), (8, 128, True), (4, 32, False), (4, 32, True)])
@pytest.mark.parametrize("external", [False, True])
def test_ours_and_onnx_runtimes_say_the_same_within_what_8_bits_are(
    bits: int, block: int, points: bool, external: bool, tmp_path: Path
) -> None:
    matrix = random_matrix(9, 256, 48, bits=bits, block=block, zero_points=points)
    graph = write_graph(tmp_path / "product.onnx", matrix, external=external)
    rows = rows_of(10, 5, 256)
    assert rewritten_graph(graph, find_kernels()) is not None
    ours, theirs = product_of(graph, "own")(rows), product_of(graph, "stock")(rows)
    assert np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()


def test_what_our_operator_does_not_compute_is_left_to_onnx_runtime(tmp_path: Path) -> None:
    kernels = find_kernels()
    matrix = random_matrix(1, 64, 16, bits=8, block=32, zero_points=False)
    assert rewritten_graph(write_graph(tmp_path / "exact.onnx", matrix, accuracy_level=1), kernels) is None
    small = random_matrix(1, 64, 16, bits=8, block=16, zero_points=False)
    assert rewritten_graph(write_graph(tmp_path / "small.onnx", small), kernels) is None


def test_weights_that_a_graph_cuts_off_or_fetches_elsewhere_are_not_read(tmp_path: Path) -> None:
    matrix = random_matrix(1, 64, 16, bits=8, block=32, zero_points=False)
    graph = write_graph(tmp_path / "product.onnx", matrix, external=True)
    weights = graph.with_suffix(".bin")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert rewritten_graph(graph, find_kernels()) is None
    weights.write_bytes(whole)
    graph.write_bytes(graph.read_bytes().replace(b"product.bin", b"../oduct.bi"))
    assert rewritten_graph(graph, find_kernels()) is None


def test_without_the_library_onnx_runtime_computes_and_asking_for_ours_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "none.so")
    find_kernels.cache_clear()
    try:
        assert choose_kernels("auto") is None
        graph = write_graph(tmp_path / "g.onnx", random_matrix(1, 64, 16, bits=8, block=32, zero_points=False))
        rows = rows_of(1, 2, 64)
        assert np.array_equal(product_of(graph, "auto")(rows), product_of(graph, "stock")(rows))
        with pytest.raises(ModelRefusedError, match="no kernels of our own"):
            product_of(graph, "own")
    finally:
        find_kernels.cache_clear()


def test_a_saved_graph_keeps_its_packed_weights_and_answers_to_the_bit_as_before(tmp_path: Path) -> None:
    matrix = random_matrix(11, 256, 300, bits=8, block=32, zero_points=True)
    graph, own = write_graph(tmp_path / "product.onnx", matrix), SessionSettings(1, spinning=False, kernels="own")
    copy = PreparedGraph(tmp_path, "copy")
    copy.graph.parent.mkdir()
    save_prepared(graph, copy.graph.parent, own)
    copy.seal()
    rows = rows_of(12, 5, 256)
    again = open_session(tmp_path / "product.onnx", own, copy).run(["product"], {"rows": rows})[0]
    assert np.array_equal(again, product_of(graph, "own")(rows))
    weights = copy.graph.parent / WEIGHTS
    assert weights.stat().st_size > 256 * 300
    weights.write_bytes(weights.read_bytes()[:-1])
    copy.seal()
    again = open_session(tmp_path / "product.onnx", own, copy).run(["product"], {"rows": rows})[0]
    assert np.array_equal(again, product_of(graph, "own")(rows))
    assert not copy.is_made()


def test_a_copy_is_for_those_kernels_alone_that_it_was_made_with() -> None:
    assert runtime_name("own") != runtime_name("stock")
    assert f"kernels {find_kernels().version}" in runtime_name("own")
