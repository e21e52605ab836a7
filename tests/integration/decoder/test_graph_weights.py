"""Large weights are handed to a session where they lie in its graph's file; what it computes does not change."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.unit.models.onnx_bytes import FLOAT, INT64, field, node, value_info, varint
from tidemill_models.errors import GraphError
from tidemill_serving.decoder.devices import graph_weights
from tidemill_serving.decoder.devices.device import ModelRefusedError
from tidemill_serving.decoder.devices.graph_weights import light_graph, weights_of
from tidemill_serving.decoder.devices.mapped_file import mapped_file, rewrite_for_mapping
from tidemill_serving.decoder.devices.ort_session import SessionSettings, open_session, save_prepared
from tidemill_serving.start_cache.prepared import PreparedGraph

STOCK = SessionSettings(1, spinning=False, kernels="stock")
TABLE = np.random.default_rng(1).standard_normal((600, 64)).astype(np.float32)
MATRIX = np.random.default_rng(2).standard_normal((64, 700)).astype(np.float32)
SMALL = np.random.default_rng(3).standard_normal(700).astype(np.float32)
IDS = np.array([[0, 599, 17]], np.int64)


def initializer(name: str, array: np.ndarray) -> bytes:
    dims = field(1, b"".join(varint(size) for size in array.shape))
    return field(5, dims + field(2, FLOAT) + field(8, name) + field(9, array.tobytes()))


def named(made: bytes, output: str) -> bytes:
    return field(1, made + field(2, output))


def write_graph(path: Path, *, shift: int = 0, inputs: tuple[str, ...] = (), more: bytes = b"") -> Path:
    """Rows of a table by a matrix, plus a small vector; `shift` bytes before them move where the weights begin."""
    graph = named(node("Gather", ("table", "ids")), "rows") + named(node("MatMul", ("rows", "matrix")), "product")
    graph += named(node("Add", ("product", "small")), "sum") + more + field(2, "g" * (1 + shift))
    for name, array in {"table": TABLE, "matrix": MATRIX, "small": SMALL}.items():
        graph += initializer(name, array)
    graph += field(11, value_info("ids", INT64, [1, "n"]))
    graph += b"".join(field(11, value_info(name, FLOAT, [600, 64])) for name in inputs)
    graph += field(12, value_info("sum", FLOAT, [1, "n", 700]))
    path.write_bytes(field(1, 10) + field(8, field(1, "") + field(2, 21)) + field(7, graph))
    return path


def mapped_paths() -> str:
    return Path("/proc/self/maps").read_text()


@pytest.fixture
def answer() -> Callable[[object], np.ndarray]:
    return lambda session: session.run(["sum"], {"ids": IDS})[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("shift", range(8))
def test_a_session_answers_the_same_wherever_its_weights_begin(shift: int, tmp_path: Path, answer) -> None:
    graph = write_graph(tmp_path / "model.onnx", shift=shift)
    plain = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert np.array_equal(answer(open_session(graph, STOCK)), answer(plain))


@pytest.mark.parametrize("shift", range(8))
def test_a_prepared_copy_answers_the_same_wherever_its_weights_began(shift: int, tmp_path: Path, answer) -> None:
    graph = write_graph(tmp_path / "model.onnx", shift=shift)
    copy = PreparedGraph(tmp_path, "copy")
    copy.graph.parent.mkdir()
    save_prepared(graph, copy.graph.parent, STOCK)
    copy.seal()
    assert np.array_equal(answer(open_session(graph, STOCK, copy)), answer(open_session(graph, STOCK)))
    assert copy.is_made()


def test_large_weights_lie_beside_the_graph_and_small_ones_in_it(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "model.onnx")
    light = light_graph(graph)
    assert len(light) < SMALL.nbytes * 2
    found = weights_of(light, tmp_path).arrays
    assert np.array_equal(found["table"], TABLE)
    assert "small" not in found


def test_numbers_that_begin_where_a_processor_reads_them_badly_are_left_to_onnx_runtime_unless_read_by_rows(
    tmp_path: Path,
) -> None:
    taken = []
    for shift in range(4):
        graph = write_graph(tmp_path / "model.onnx", shift=shift)
        found = weights_of(light_graph(graph), tmp_path).arrays
        assert np.array_equal(found["table"], TABLE)
        taken.append("matrix" in found)
    assert sorted(taken) == [False, False, False, True]


def test_a_table_that_something_else_reads_as_well_is_not_read_by_rows_alone(tmp_path: Path) -> None:
    more = named(node("Transpose", ("table",)), "turned")
    found = [
        weights_of(light_graph(write_graph(tmp_path / "model.onnx", shift=shift, more=more)), tmp_path).arrays
        for shift in range(4)
    ]
    assert sorted("table" in each for each in found) == [False, False, False, True]


def test_the_weights_of_a_session_are_those_of_the_file_and_leave_memory_with_it(tmp_path: Path, answer) -> None:
    graph = write_graph(tmp_path / "model.onnx")
    session = open_session(graph, STOCK)
    answer(session)
    assert str(graph) in mapped_paths()
    del session
    assert str(graph) not in mapped_paths()


def test_a_weight_that_a_caller_may_replace_stays_in_the_graph(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "model.onnx", inputs=("table",))
    session = open_session(graph, STOCK)
    ones = np.ones_like(TABLE)
    replaced = session.run(["sum"], {"ids": IDS, "table": ones})[0]
    assert np.allclose(replaced, ones[:3] @ MATRIX + SMALL, atol=1e-3)


def test_a_file_that_is_cut_off_is_refused_in_words(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "model.onnx")
    graph.write_bytes(graph.read_bytes()[:-1000])
    with pytest.raises(GraphError):
        light_graph(graph)
    with pytest.raises(ModelRefusedError, match="cannot be loaded"):
        open_session(graph, STOCK)


def test_a_weight_that_has_fewer_numbers_than_it_says_is_refused_and_not_filled_with_what_follows(
    tmp_path: Path,
) -> None:
    graph = write_graph(tmp_path / "model.onnx")
    longer = field(1, varint(601) + varint(64))
    graph.write_bytes(graph.read_bytes().replace(field(1, varint(600) + varint(64)), longer))
    assert "table" not in weights_of(light_graph(graph), tmp_path).arrays
    with pytest.raises(ModelRefusedError, match="cannot be loaded"):
        open_session(graph, STOCK)


@pytest.mark.parametrize("size", [1, graph_weights._MIN_BYTES, (16 << 20) + 7])
def test_a_file_that_is_written_anew_has_the_same_bytes(size: int, tmp_path: Path) -> None:
    file, content = tmp_path / "weights.bin", np.random.default_rng(size).bytes(size)
    file.write_bytes(content)
    rewrite_for_mapping(file)
    assert mapped_file(file).tobytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["weights.bin"]
