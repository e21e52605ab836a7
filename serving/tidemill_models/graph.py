"""What an ONNX file takes, gives and computes with, read without onnxruntime and without its weights."""

import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidemill_models.errors import GraphError
from tidemill_models.protobuf_wire import WireMessage

_MAX_DEPTH = 16  # of graphs within graphs
_DTYPES = {1: "float32", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64", 16: "bfloat16"}
_LAYER_KEY = re.compile(r"past_key_values\.([0-9]{1,4})\.key")

# Numbers of the fields in onnx.proto3 that are read here.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 11, 12, 15
_NODE_INPUT, _NODE_OP_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_DIMS, _TENSOR_NAME, _TENSOR_EXTERNAL = 1, 8, 13
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN = 1, 7, 10
_GQA = "com.microsoft::GroupQueryAttention"
_GQA_COS_CACHE = 7  # which of its inputs
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER = 1, 3
_LARGEST_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor's element type, and its dimensions: a number, a name, or None where nothing is said."""

    dtype: str
    dims: tuple[int | str | None, ...]


@dataclass(frozen=True)
class GraphSignature:
    """A graph seen from outside. Operators are named `domain::type`, without the domain for ONNX's own."""

    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]
    op_types: frozenset[str]
    external_files: frozenset[str]  # where weights lie that are not in the file, as it names them
    num_positions: int | None = None  # rows of the table of rotary angles, where there is one
    has_windows: bool = False  # some layer attends within a window, as the graph itself says

    @property
    def num_layers(self) -> int:
        """How many layers have a KV cache among the inputs."""
        return sum(1 for name in self.inputs if _LAYER_KEY.fullmatch(name))

    @property
    def num_kv_heads(self) -> int | None:
        """The second dimension of the first layer's keys, where it is a number."""
        return self._number("past_key_values.0.key", 1)

    @property
    def head_size(self) -> int | None:
        """The last dimension of the first layer's keys; many exports leave it open, and the engine finds it out."""
        return self._number("past_key_values.0.key", 3)

    @property
    def vocabulary_size(self) -> int | None:
        """The last dimension of the logits, where it is a number."""
        logits = self.outputs.get("logits")
        size = logits.dims[-1] if logits and logits.dims else None
        return size if isinstance(size, int) else None

    @property
    def has_position_ids(self) -> bool:
        """Whether the graph wants the positions told."""
        return "position_ids" in self.inputs

    @property
    def has_gqa(self) -> bool:
        """Whether attention is GroupQueryAttention, which can append to a shared buffer in place."""
        return _GQA in self.op_types

    def _number(self, name: str, axis: int) -> int | None:
        tensor = self.inputs.get(name)
        size = tensor.dims[axis] if tensor and len(tensor.dims) > axis else None
        return size if isinstance(size, int) else None


def read_graph(path: Path) -> GraphSignature:
    """Read the signature of an ONNX file. Raises GraphError, which names the file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _signature(WireMessage(content, 0, len(content)))
    except GraphError as error:
        raise GraphError(error.sentence, path=str(path)) from None
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise GraphError(f"cannot be read: {error}", path=str(path)) from error


@dataclass(slots=True)
class _Contents:
    """What the nodes and tensors of a model hold, gathered over all its graphs."""

    op_types: set[str]
    external_files: set[str]
    cos_cache: str = ""  # the name of the table of rotary angles
    has_windows: bool = False

    def add_graph(self, graph: WireMessage, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            raise GraphError(f"has graphs within graphs deeper than {_MAX_DEPTH}")
        for number, value in graph.fields():
            if isinstance(value, int):
                continue
            if number == _GRAPH_NODE:
                self.add_node(value, depth)
            elif number == _GRAPH_INITIALIZER:
                self.add_tensor(value)
            elif number == _GRAPH_SPARSE:
                raise GraphError("has sparse weights, which are not supported")

    def add_node(self, node: WireMessage, depth: int) -> None:
        domain, op_type = node.text_of(_NODE_DOMAIN), node.text_of(_NODE_OP_TYPE)
        self.op_types.add(_qualified(domain, op_type))
        if _qualified(domain, op_type) == _GQA:
            self.cos_cache = "".join(node.texts(_NODE_INPUT)[_GQA_COS_CACHE : _GQA_COS_CACHE + 1])
        for attribute in node.messages(_NODE_ATTRIBUTE):
            if attribute.text_of(_ATTRIBUTE_NAME) == "local_window_size":  # -1, which is huge on the wire: none
                self.has_windows |= 0 < attribute.integer(_ATTRIBUTE_INTEGER) <= _LARGEST_INT64
            for number, value in attribute.fields():
                if isinstance(value, int):
                    continue
                if number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                    self.add_tensor(value)
                elif number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                    self.add_graph(value, depth + 1)

    def add_tensor(self, tensor: WireMessage) -> None:
        for entry in tensor.messages(_TENSOR_EXTERNAL):
            if entry.text_of(1) == "location":
                self.external_files.add(entry.text_of(2))


def _signature(model: WireMessage) -> GraphSignature:
    graph = model.message(_MODEL_GRAPH)
    contents = _Contents(set(), set())
    contents.add_graph(graph)
    local_functions = set()
    for function in model.messages(_MODEL_FUNCTIONS):
        local_functions.add(_qualified(function.text_of(_FUNCTION_DOMAIN), function.text_of(_FUNCTION_NAME)))
        for node in function.messages(_FUNCTION_NODE):
            contents.add_node(node, 0)
    weights = {tensor.text_of(_TENSOR_NAME): tensor for tensor in graph.messages(_GRAPH_INITIALIZER)}
    cos_cache = weights.get(contents.cos_cache)
    inputs = dict(_tensors(graph, _GRAPH_INPUT))
    outputs = dict(_tensors(graph, _GRAPH_OUTPUT))
    if not contents.op_types or not outputs:
        raise GraphError("is not an ONNX file: it has no graph")
    return GraphSignature(
        inputs={name: tensor for name, tensor in inputs.items() if name not in weights},
        outputs=outputs,
        op_types=frozenset(contents.op_types - local_functions),
        external_files=frozenset(contents.external_files),
        num_positions=next(iter(cos_cache.integers(_TENSOR_DIMS)), None) if cos_cache else None,
        has_windows=contents.has_windows,
    )


def _tensors(graph: WireMessage, number: int) -> Iterator[tuple[str, TensorType]]:
    """The inputs or outputs: ValueInfo(name=1, type=2), Type(tensor_type=1), Tensor(elem_type=1, shape=2)."""
    for value_info in graph.messages(number):
        tensor = value_info.message(2).message(1)
        dims = tuple(_dimension(dimension) for dimension in tensor.message(2).messages(1))
        elem_type = tensor.integer(1)
        yield value_info.text_of(1), TensorType(_DTYPES.get(elem_type, f"onnx type {elem_type}"), dims)


def _dimension(dimension: WireMessage) -> int | str | None:
    for number, value in dimension.fields():
        if number == 1 and isinstance(value, int):
            return value
        if number == 2 and isinstance(value, WireMessage):
            return value.text()
    return None


def _qualified(domain: str, op_type: str) -> str:
    return op_type if domain in ("", "ai.onnx") else f"{domain}::{op_type}"
