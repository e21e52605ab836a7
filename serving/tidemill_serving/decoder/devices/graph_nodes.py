"""The nodes and constants of a graph as rewriting reads them, and nodes as it writes them."""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill_models.protobuf_wire import WireMessage, encoded_field
from tidemill_serving.decoder.devices.mapped_file import mapped_file

# Numbers of the fields in onnx.proto3.
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_FLOAT, _ATTRIBUTE_INTEGER, _ATTRIBUTE_TEXT, _ATTRIBUTE_INTEGERS = 1, 2, 3, 4, 8
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_TYPE = 6, 11, 20
_FLOAT_KIND, _INTEGER_KIND, _TEXT_KIND, _INTEGERS_KIND = 1, 2, 3, 7
TENSOR_DIMS, TENSOR_DTYPE, TENSOR_NAME, _TENSOR_RAW, TENSOR_EXTERNAL, TENSOR_LOCATION = 1, 2, 8, 9, 13, 14
EXTERNAL = 1  # a tensor's location
FLOAT32, UINT8 = 1, 2
_DTYPES: dict[int, np.dtype[Any]] = {FLOAT32: np.dtype(np.float32), UINT8: np.dtype(np.uint8)}

Attribute = float | int | str | None


@dataclass(frozen=True, slots=True)
class Node:
    """One node. Its kind is the operator with its domain before it: `com.microsoft::MatMulNBits`, `Mul`."""

    kind: str
    name: str
    inputs: tuple[str, ...]  # without the empty ones at the end
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    orders: list[int]  # of dimensions, where one is said
    names_read: frozenset[str]  # by the graphs within it as well
    content: memoryview


def read_node(message: WireMessage) -> Node:
    """Raises GraphError."""
    domain, inputs = message.text_of(_NODE_DOMAIN), message.texts(_NODE_INPUT)
    while inputs and not inputs[-1]:
        inputs.pop()
    return Node(
        kind=f"{domain}::" * bool(domain) + message.text_of(_NODE_OP_TYPE),
        name=message.text_of(_NODE_NAME),
        inputs=tuple(inputs),
        outputs=tuple(message.texts(_NODE_OUTPUT)),
        attributes={each.text_of(_ATTRIBUTE_NAME): _value_of(each) for each in message.messages(_NODE_ATTRIBUTE)},
        orders=[
            order
            for each in message.messages(_NODE_ATTRIBUTE)
            if each.text_of(_ATTRIBUTE_NAME) == "perm"
            for order in each.integers(_ATTRIBUTE_INTEGERS)
        ],
        names_read=frozenset(_names_read(message)),
        content=message.content(),
    )


def written_node(
    domain: str,
    operator: str,
    name: str,
    inputs: Iterable[str],
    outputs: Iterable[str],
    attributes: Mapping[str, int | list[int]],
) -> bytes:
    """A node as bytes."""
    parts = [encoded_field(_NODE_INPUT, each) for each in inputs]
    parts += [encoded_field(_NODE_OUTPUT, each) for each in outputs]
    parts += [encoded_field(_NODE_NAME, name), encoded_field(_NODE_OP_TYPE, operator)]
    parts += [encoded_field(_NODE_ATTRIBUTE, _attribute(each, value)) for each, value in attributes.items()]
    return b"".join([*parts, encoded_field(_NODE_DOMAIN, domain)])


class Constants:
    """The tensors of a graph that nobody can replace, by name, where they lie."""

    def __init__(self, graph: WireMessage, folder: Path) -> None:
        """`folder` holds the files beside the graph."""
        self._folder = folder
        self._files: dict[str, NDArray[np.uint8]] = {}
        self._tensors = {tensor.text_of(TENSOR_NAME): tensor for tensor in graph.messages(GRAPH_INITIALIZER)}
        for value in graph.messages(GRAPH_INPUT):  # a weight that is an input as well may be replaced by a caller
            self._tensors.pop(value.text_of(1), None)

    def dims(self, name: str, dtype: int) -> list[int] | None:
        """A constant's dimensions; None where there is none of this name and type."""
        tensor = self._tensors.get(name)
        return None if tensor is None or tensor.integer(TENSOR_DTYPE) != dtype else tensor.integers(TENSOR_DIMS)

    def array(self, name: str, dtype: int) -> NDArray[Any] | None:
        """A constant's numbers, flat; None where they are of another type, or kept in another way."""
        dims, tensor = self.dims(name, dtype), self._tensors.get(name)
        if dims is None or tensor is None:
            return None
        size = int(np.prod(dims, dtype=np.int64)) if dims else 1
        if tensor.integer(TENSOR_LOCATION) == EXTERNAL:
            return self._external(tensor, _DTYPES[dtype], size)
        content = tensor.message(_TENSOR_RAW).content()
        return np.frombuffer(content, _DTYPES[dtype]) if len(content) == size * _DTYPES[dtype].itemsize else None

    def _external(self, tensor: WireMessage, dtype: np.dtype[Any], size: int) -> NDArray[Any] | None:
        entries = external_entries(tensor)
        location, offset = entries.get("location", ""), entries.get("offset", "0")
        if PurePath(location).name != location or not offset.isdecimal():  # only a file beside the graph
            return None
        if location not in self._files:
            self._files[location] = mapped_file(self._folder / location)
        content = self._files[location][int(offset) :][: size * dtype.itemsize]
        return np.frombuffer(content.data, dtype) if len(content) == size * dtype.itemsize else None


def external_entries(tensor: WireMessage) -> dict[str, str]:
    """Where an external tensor lies, as it says."""
    return {entry.text_of(1): entry.text_of(2) for entry in tensor.messages(TENSOR_EXTERNAL)}


def value_type(value: WireMessage) -> tuple[int, list[int | str]]:
    """The element type of a graph's input, and its dimensions: numbers, or names."""
    tensor = value.message(2).message(1)
    dims = list(tensor.message(2).messages(1))
    return tensor.integer(1), [dim.integer(1) or dim.text_of(2) for dim in dims]


def float_bits(number: float) -> int:
    """A float32 as an integer."""
    return int(struct.unpack("<I", struct.pack("<f", number))[0])


def _attribute(name: str, value: int | list[int]) -> bytes:
    if isinstance(value, int):
        said, kind = encoded_field(_ATTRIBUTE_INTEGER, value), _INTEGER_KIND
    else:
        said = b"".join(encoded_field(_ATTRIBUTE_INTEGERS, each % (1 << 64)) for each in value)
        kind = _INTEGERS_KIND
    return encoded_field(_ATTRIBUTE_NAME, name) + said + encoded_field(_ATTRIBUTE_TYPE, kind)


def _value_of(attribute: WireMessage) -> Attribute:
    kind = attribute.integer(_ATTRIBUTE_TYPE)
    if kind == _FLOAT_KIND:
        content = bytes(attribute.message(_ATTRIBUTE_FLOAT).content())
        return round(float(struct.unpack("<f", content)[0]), 9) if content else 0.0
    if kind == _INTEGER_KIND:
        number = attribute.integer(_ATTRIBUTE_INTEGER)
        return number - (1 << 64) if number >> 63 else number
    return attribute.text_of(_ATTRIBUTE_TEXT) if kind == _TEXT_KIND else None


def _names_read(node: WireMessage) -> Iterator[str]:
    """What a node reads, and what the graphs within it read."""
    yield from node.texts(_NODE_INPUT)
    for attribute in node.messages(_NODE_ATTRIBUTE):
        for number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            for graph in attribute.messages(number):
                for inner in graph.messages(GRAPH_NODE):
                    yield from _names_read(inner)
