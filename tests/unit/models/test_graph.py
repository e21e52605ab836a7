import contextlib
import random
from pathlib import Path

import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.models import onnx_bytes
from tests.unit.models.onnx_bytes import FLOAT, field, model, node, tensor
from tidemill_models import protobuf_wire
from tidemill_models.errors import GraphError
from tidemill_models.graph import GraphSignature, TensorType, read_graph
from tidemill_models.protobuf_wire import WireMessage

MODELS = Path(__file__).parents[2] / "models"
ONE_OUTPUT = {"y": (FLOAT, [1])}


@pytest.fixture
def read(tmp_path):
    def read_bytes(content: bytes) -> GraphSignature:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return read_graph(path)

    return read_bytes


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-llama-positions"])
def test_a_real_export_is_seen_as_onnxruntime_sees_it(name):
    path = MODELS / name / "model.onnx"
    graph = read_graph(path)
    session = onnxruntime.InferenceSession(path)
    dtypes = {"float32": "tensor(float)", "int64": "tensor(int64)"}
    for ours, theirs in ((graph.inputs, session.get_inputs()), (graph.outputs, session.get_outputs())):
        seen = {key: (dtypes[value.dtype], list(value.dims)) for key, value in ours.items()}
        assert seen == {each.name: (each.type, each.shape) for each in theirs}
    assert graph.num_layers == 2
    assert graph.num_kv_heads == 2
    assert graph.vocabulary_size == 512
    assert graph.has_gqa
    assert graph.has_position_ids == (name == "tiny-llama-positions")
    assert graph.external_files == frozenset()


def test_a_decoder_is_described(read):
    graph = read(onnx_bytes.decoder())
    assert graph.inputs["past_key_values.1.value"] == TensorType("float32", ("b", 2, "p", 16))
    assert graph.op_types == {"MatMul", onnx_bytes.GQA}
    assert (graph.num_layers, graph.num_kv_heads, graph.head_size, graph.vocabulary_size) == (2, 2, 16, 512)
    assert graph.num_positions == 64


def test_packed_dimensions_and_open_ones_are_read(read):
    inputs = {"x": (99, [None, 3, "n"])}
    graph = read(model(inputs, ONE_OUTPUT, [onnx_bytes.attention("c")], [tensor("c", [300, 8], packed=True)]))
    assert graph.inputs["x"] == TensorType("onnx type 99", (None, 3, "n"))
    assert graph.num_positions == 300
    assert (graph.num_layers, graph.num_kv_heads, graph.head_size, graph.vocabulary_size) == (0, None, None, None)


def test_inputs_that_are_weights_are_left_out(read):
    inputs = {"x": (FLOAT, [1]), "w": (FLOAT, [1])}
    assert set(read(model(inputs, ONE_OUTPUT, [node("Add")], [tensor("w", [1])])).inputs) == {"x"}


def test_operators_and_weights_inside_of_branches_are_seen(read):
    inner = field(1, node("evil::Op")) + field(5, tensor("w", [1], external="w.bin"))
    branch = field(5, field(1, "then_branch") + field(6, inner))
    constant = field(5, field(1, "value") + field(5, tensor("c", [1], external="c.bin")))
    graph = read(model({}, ONE_OUTPUT, [node("If", attributes=branch), node("Constant", attributes=constant)]))
    assert graph.op_types == {"If", "Constant", "evil::Op"}
    assert graph.external_files == {"w.bin", "c.bin"}


def test_a_function_of_the_file_is_seen_by_what_it_does(read):
    function = field(25, field(1, "Gelu") + field(7, node("evil::Op")) + field(10, "local"))
    graph = read(model({}, ONE_OUTPUT, [node("local::Gelu")], rest=function))
    assert graph.op_types == {"evil::Op"}


def test_sparse_weights_and_endless_nesting_are_refused(read):
    with pytest.raises(GraphError, match="sparse weights"):
        read(field(7, field(1, node("Add")) + field(15, b"\0")))
    nested = b""
    for _ in range(40):
        nested = field(1, node("If", attributes=field(5, field(6, nested))))
    with pytest.raises(GraphError, match="graphs within graphs"):
        read(field(7, nested))


def test_numbers_packed_into_one_field_count_like_fields(monkeypatch):
    content = field(1, b"\1" * 1001)
    monkeypatch.setattr(protobuf_wire, "_MAX_FIELDS", 1000)
    with pytest.raises(GraphError, match="more than 1000 fields"):
        WireMessage(content, 0, len(content)).integers(1)


def test_the_fields_of_a_small_message_are_read_once_and_those_of_a_large_one_each_time(monkeypatch):
    monkeypatch.setattr(protobuf_wire, "_MAX_FIELDS", 100)
    small, large = field(1, 7) + field(2, "name"), field(1, 7) + field(2, "n" * 5000)
    message = WireMessage(small, 0, len(small))
    assert [(message.integer(1), message.text_of(2)) for _ in range(100)] == [(7, "name")] * 100
    message = WireMessage(large, 0, len(large))
    with pytest.raises(GraphError, match="more than 100 fields"):
        [message.integer(1) for _ in range(100)]


@pytest.mark.parametrize("content", [b"", b"\0", b"PK\x03\x04", b"\xff" * 100, b"<html>", field(1, 9), field(7, b"")])
def test_what_is_no_onnx_file_is_refused_with_its_path(read, tmp_path, content):
    with pytest.raises(GraphError) as caught:
        read(content)
    assert caught.value.path == str(tmp_path / "model.onnx")


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_damaged_files_are_read_or_refused_and_nothing_else(seed):
    chance = random.Random(seed)
    content = bytearray(onnx_bytes.decoder())
    for _ in range(chance.randrange(1, 6)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    del content[chance.randrange(len(content)) :]
    message = WireMessage(bytes(content), 0, len(content))
    with contextlib.suppress(GraphError):
        _read_all(message, depth=0)


def _read_all(message: WireMessage, depth: int) -> None:
    for _, value in message.fields():
        if isinstance(value, WireMessage) and depth < 6:
            _read_all(value, depth + 1)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32))
def test_a_damaged_graph_never_ends_in_another_error(tmp_path_factory, seed):
    chance = random.Random(seed)
    content = bytearray(onnx_bytes.decoder())
    for _ in range(chance.randrange(1, 4)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    path.write_bytes(content)
    with contextlib.suppress(GraphError):
        assert read_graph(path).outputs
