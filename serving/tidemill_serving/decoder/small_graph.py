"""Writes ONNX graphs of a few stock operators as bytes, without the onnx library, which serving does not need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_IR_VERSION, _OPSET = 9, 18
_FLOAT, _INT64 = 1, 7  # TensorProto.DataType
_INT_ATTRIBUTE = 2  # AttributeProto.AttributeType


@dataclass(frozen=True, slots=True)
class Node:
    """One operator; its attributes are integers."""

    operator: str
    inputs: Sequence[str]
    output: str
    attributes: Mapping[str, int] = field(default_factory=dict)


def graph_of(
    nodes: Sequence[Node],
    *,
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    constants: Mapping[str, Sequence[int]],
) -> bytes:
    """A model's file. Inputs are float32, with a number or a name for each dimension; constants are lists of int64."""
    graph = b"".join(_message(1, _node(node)) for node in nodes) + _text(2, "graph")
    graph += b"".join(_message(5, _constant(name, values)) for name, values in constants.items())
    graph += b"".join(_message(11, _value(name, shape)) for name, shape in inputs.items())
    graph += b"".join(_message(12, _text(1, name) + _message(2, _message(1, _integer(1, _FLOAT)))) for name in outputs)
    return _integer(1, _IR_VERSION) + _message(7, graph) + _message(8, _text(1, "") + _integer(2, _OPSET))


def _node(node: Node) -> bytes:
    names = b"".join(_text(1, name) for name in node.inputs) + _text(2, node.output) + _text(4, node.operator)
    return names + b"".join(
        _message(5, _text(1, name) + _integer(3, value) + _integer(20, _INT_ATTRIBUTE))
        for name, value in node.attributes.items()
    )


def _constant(name: str, values: Sequence[int]) -> bytes:
    content = b"".join(value.to_bytes(8, "little", signed=True) for value in values)
    return _integer(1, len(values)) + _integer(2, _INT64) + _text(8, name) + _message(9, content)


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    dimensions = b"".join(_message(1, _integer(1, size) if isinstance(size, int) else _text(2, size)) for size in shape)
    return _text(1, name) + _message(2, _message(1, _integer(1, _FLOAT) + _message(2, dimensions)))


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value % 2**64)


def _varint(value: int) -> bytes:
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)
