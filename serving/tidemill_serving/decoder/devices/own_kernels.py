"""Rewrites a graph so that our own operators compute its products and its attention, see `native/`.

Every MatMulNBits whose weights are constants, in blocks that the operator knows, gives way to one PackedMatMulNBits,
every MatMul of float32 with a constant to one PackedMatMul, and their weights to packed ones. All else stays as it is,
byte by byte.
"""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill_models.errors import GraphError
from tidemill_models.protobuf_wire import WireMessage, encoded_field
from tidemill_serving.decoder.devices.operator_nodes import (
    DOMAIN,
    NODE_ATTRIBUTE,
    NODE_INPUT,
    PACKED,
    operator_of,
    own_node,
)
from tidemill_serving.decoder.devices.own_attention import own_attention, past_key_of
from tidemill_serving.decoder.devices.own_float_products import FloatProduct, FloatProducts
from tidemill_serving.native.library import Kernels, QuantizedMatrix, room_for

# Numbers of the fields in onnx.proto3.
_MODEL_GRAPH, _MODEL_OPSET = 7, 8
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER, _ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 1, 3, 6, 11
_TENSOR_DIMS, _TENSOR_DTYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 2, 8, 9, 13, 14
_EXTERNAL = 1
_DTYPES = {1: np.dtype(np.float32), 2: np.dtype(np.uint8)}
_UINT8 = 2

_NUM_PRODUCT_INPUTS = 4  # input, values, scales, zero points; behind them an order of the depth, and a bias
_ACCURACY_LEVEL = 4  # the input in 8 bits


@dataclass(frozen=True, slots=True)
class RewrittenGraph:
    """A graph whose packed weights lie beside it, by name."""

    model: bytes
    weights: dict[str, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class _QuantizedProduct:
    """A MatMulNBits to be rewritten, and what it multiplies with."""

    node: WireMessage
    matrix: QuantizedMatrix
    constants: tuple[str, ...]  # the weights' names

    @property
    def packed_name(self) -> str:
        return PACKED + " ".join((*self.constants, f"{self.matrix.depth}x{self.matrix.width}"))

    def packed_bytes(self, kernels: Kernels) -> int:
        return kernels.packed_bytes(self.matrix)

    def pack(self, kernels: Kernels, room: NDArray[np.uint8]) -> None:
        kernels.pack(self.matrix, room)

    def written(self, kernels: Kernels) -> bytes:
        numbers = {
            "depth": self.matrix.depth,
            "width": self.matrix.width,
            "bits": self.matrix.bits,
            "block": self.matrix.block,
            "has_zero_points": int(self.matrix.zero_points is not None),
            "version": kernels.version,
        }
        return own_node(self.node, "PackedMatMulNBits", [self.node.texts(NODE_INPUT)[0], self.packed_name], numbers)


_Product = _QuantizedProduct | FloatProduct


def with_own_kernels(graph: Path, kernels: Kernels) -> RewrittenGraph | None:
    """The graph with our operator in it; None where nothing is rewritten. Raises GraphError, OSError, ValueError."""
    with graph.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # unmapped when the last view of it is gone
    model = WireMessage(content, 0, len(content))
    return _Rewriting(model.message(_MODEL_GRAPH), graph.parent, kernels).rewritten(model)


def packed_weights(graph: Path) -> dict[str, NDArray[np.uint8]]:
    """The packed weights of a saved graph, read into memory of large pages; mapped ones would lie in small ones.

    Raises GraphError, OSError, ValueError.
    """
    content = graph.read_bytes()
    tensors = WireMessage(content, 0, len(content)).message(_MODEL_GRAPH).messages(_GRAPH_INITIALIZER)
    packed = {name: tensor for tensor in tensors if (name := tensor.text_of(_TENSOR_NAME)).startswith(PACKED)}
    rooms = room_for([tensor.integer(_TENSOR_DIMS) for tensor in packed.values()])
    for tensor, room in zip(packed.values(), rooms, strict=True):
        entries = _external_entries(tensor)
        with (graph.parent / PurePath(entries["location"]).name).open("rb", buffering=0) as file:
            file.seek(int(entries["offset"]))
            if file.readinto(room.data) != len(room):
                raise GraphError("has packed weights that are cut off")
    return dict(zip(packed, rooms, strict=True))


class _Rewriting:
    def __init__(self, graph: WireMessage, folder: Path, kernels: Kernels) -> None:
        self._graph = graph
        self._folder = folder
        self._kernels = kernels
        self._tensors = {tensor.text_of(_TENSOR_NAME): tensor for tensor in graph.messages(_GRAPH_INITIALIZER)}
        self._inputs = {value.text_of(1): _type_of(value) for value in graph.messages(_GRAPH_INPUT)}
        for name in self._inputs:  # a weight that is an input as well may be replaced by a caller
            self._tensors.pop(name, None)

    def rewritten(self, model: WireMessage) -> RewrittenGraph | None:
        nodes = list(self._graph.messages(_GRAPH_NODE))
        floats = FloatProducts(nodes, self._float_constant, self._kernels)
        found = [self._product(node) or floats.find(node) for node in nodes]
        attentions = [self._attention(node) for node in nodes]
        if not any(found) and not any(attentions):
            return None
        products = {product.packed_name: product for product in found if product}
        weights = self._packed(products)
        parts = [encoded_field(_GRAPH_INITIALIZER, _packed_tensor(name, array.size)) for name, array in weights.items()]
        read = self._names_read(nodes, found)
        left = [i for i, node in enumerate(nodes) if found[i] or not floats.is_idle(node, read)]
        for i in left:
            product = found[i]
            content = product.written(self._kernels) if product else attentions[i] or nodes[i].content()
            parts.append(encoded_field(_GRAPH_NODE, content))
        constants = {name for product in products.values() for name in product.constants}
        parts += self._other_fields(constants - self._names_read([nodes[i] for i in left], [found[i] for i in left]))
        opset = encoded_field(_MODEL_OPSET, encoded_field(1, DOMAIN) + encoded_field(2, 1))
        return RewrittenGraph(_model(model, parts, opset), weights)

    def _names_read(self, nodes: Sequence[WireMessage], found: Sequence[_Product | None]) -> set[str]:
        """What whoever reads the graph's outputs, these nodes, and those of them that are our products now read."""
        names = {value.text_of(1) for value in self._graph.messages(_GRAPH_OUTPUT)}
        for node, product in zip(nodes, found, strict=True):
            names |= {node.texts(NODE_INPUT)[0]} if product else set(_names_read(node))
        return names

    def _packed(self, products: dict[str, _Product]) -> dict[str, NDArray[np.uint8]]:
        rooms = room_for([product.packed_bytes(self._kernels) for product in products.values()])
        for product, room in zip(products.values(), rooms, strict=True):
            product.pack(self._kernels, room)
        return dict(zip(products, rooms, strict=True))

    def _other_fields(self, gone: set[str]) -> Iterator[bytes]:
        for number, value in self._graph.fields():
            if isinstance(value, int):
                yield encoded_field(number, value)
            elif number != _GRAPH_NODE and not (number == _GRAPH_INITIALIZER and value.text_of(_TENSOR_NAME) in gone):
                yield encoded_field(number, value.content())

    def _attention(self, node: WireMessage) -> bytes | None:
        """The node as our attention, if that computes the same."""
        cache = self._inputs.get(past_key_of(node))
        return None if cache is None else own_attention(node, cache, self._kernels.attention_version)

    def _product(self, node: WireMessage) -> _QuantizedProduct | None:
        """The node's product, if our operator computes it as well."""
        if operator_of(node) != "com.microsoft::MatMulNBits":
            return None
        names = node.texts(NODE_INPUT)
        while names and not names[-1]:
            names.pop()
        numbers = {
            attribute.text_of(_ATTRIBUTE_NAME): attribute.integer(_ATTRIBUTE_INTEGER)
            for attribute in node.messages(NODE_ATTRIBUTE)
        }
        if not 3 <= len(names) <= _NUM_PRODUCT_INPUTS or numbers.get("accuracy_level") != _ACCURACY_LEVEL:
            return None
        if numbers.get("weight_prepacked"):
            return None
        values, scales = self._array(names[1], np.uint8), self._array(names[2], np.float32)
        points = self._array(names[3], np.uint8) if len(names) == _NUM_PRODUCT_INPUTS else None
        if values is None or scales is None or (points is None and len(names) == _NUM_PRODUCT_INPUTS):
            return None
        matrix = QuantizedMatrix(
            depth=numbers.get("K", 0),
            width=numbers.get("N", 0),
            bits=numbers.get("bits", 4),
            block=numbers.get("block_size", 0),
            values=values,
            scales=scales,
            zero_points=points,
        )
        return _QuantizedProduct(node, matrix, tuple(names[1:])) if self._kernels.packed_bytes(matrix) else None

    def _float_constant(self, name: str) -> NDArray[Any] | None:
        numbers = self._array(name, np.float32)
        return None if numbers is None else numbers.reshape(self._tensors[name].integers(_TENSOR_DIMS))

    def _array(self, name: str, dtype: type[np.generic]) -> NDArray[Any] | None:
        """A constant's numbers where they lie; None where they are of another type or kept in another way."""
        tensor = self._tensors.get(name)
        if tensor is None or _DTYPES.get(tensor.integer(_TENSOR_DTYPE)) != np.dtype(dtype):
            return None
        dims = tensor.integers(_TENSOR_DIMS)
        size = int(np.prod(dims, dtype=np.int64)) if dims else 1
        if tensor.integer(_TENSOR_LOCATION) == _EXTERNAL:
            return self._external(tensor, np.dtype(dtype), size)
        content = tensor.message(_TENSOR_RAW).content()
        return np.frombuffer(content, dtype) if len(content) == size * np.dtype(dtype).itemsize else None

    def _external(self, tensor: WireMessage, dtype: np.dtype[Any], size: int) -> NDArray[Any] | None:
        entries = _external_entries(tensor)
        location, offset = entries.get("location", ""), entries.get("offset", "0")
        if PurePath(location).name != location or not offset.isdecimal():  # only a file beside the graph
            return None
        file = self._folder / location
        if int(offset) + size * dtype.itemsize > file.stat().st_size:
            return None
        return np.memmap(file, dtype, "r", offset=int(offset), shape=(size,))


def _external_entries(tensor: WireMessage) -> dict[str, str]:
    return {entry.text_of(1): entry.text_of(2) for entry in tensor.messages(_TENSOR_EXTERNAL)}


def _model(model: WireMessage, graph_parts: list[bytes], opset: bytes) -> bytes:
    """The model's other fields, then the graph: neither it nor its parts are copied more than once."""
    parts = [
        encoded_field(number, value if isinstance(value, int) else value.content())
        for number, value in model.fields()
        if number != _MODEL_GRAPH
    ]
    return b"".join([*parts, opset, encoded_field(_MODEL_GRAPH, b"".join(graph_parts))])


def _packed_tensor(name: str, num_bytes: int) -> bytes:
    """A weight whose bytes the session is handed; the place that it names is never read."""
    place = encoded_field(1, "location") + encoded_field(2, "packed")
    return b"".join(
        [
            encoded_field(_TENSOR_DIMS, num_bytes),
            encoded_field(_TENSOR_DTYPE, _UINT8),
            encoded_field(_TENSOR_NAME, name),
            encoded_field(_TENSOR_EXTERNAL, place),
            encoded_field(_TENSOR_LOCATION, _EXTERNAL),
        ]
    )


def _type_of(value: WireMessage) -> tuple[int, list[int | str]]:
    """The element type of a graph's input, and its dimensions: numbers, or names."""
    tensor = value.message(2).message(1)
    dims = list(tensor.message(2).messages(1))
    return tensor.integer(1), [dim.integer(1) or dim.text_of(2) for dim in dims]


def _names_read(node: WireMessage) -> Iterator[str]:
    """What a node reads, and what the graphs within it read."""
    yield from node.texts(NODE_INPUT)
    for attribute in node.messages(NODE_ATTRIBUTE):
        for number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            for graph in attribute.messages(number):
                for inner in graph.messages(_GRAPH_NODE):
                    yield from _names_read(inner)
