"""Writes ONNX graphs of a few stock operators as bytes, without the onnx library, which serving does not need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidemill_models.protobuf_wire import encoded_field

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
    graph = b"".join(encoded_field(1, _node(node)) for node in nodes) + encoded_field(2, "graph")
    graph += b"".join(encoded_field(5, _constant(name, values)) for name, values in constants.items())
    graph += b"".join(encoded_field(11, _value(name, shape)) for name, shape in inputs.items())
    graph += b"".join(
        encoded_field(12, encoded_field(1, name) + encoded_field(2, encoded_field(1, _integer(1, _FLOAT))))
        for name in outputs
    )
    return (
        _integer(1, _IR_VERSION)
        + encoded_field(7, graph)
        + encoded_field(8, encoded_field(1, "") + _integer(2, _OPSET))
    )


def _node(node: Node) -> bytes:
    names = (
        b"".join(encoded_field(1, name) for name in node.inputs)
        + encoded_field(2, node.output)
        + encoded_field(4, node.operator)
    )
    return names + b"".join(
        encoded_field(5, encoded_field(1, name) + _integer(3, value) + _integer(20, _INT_ATTRIBUTE))
        for name, value in node.attributes.items()
    )


def _constant(name: str, values: Sequence[int]) -> bytes:
    content = b"".join(value.to_bytes(8, "little", signed=True) for value in values)
    return _integer(1, len(values)) + _integer(2, _INT64) + encoded_field(8, name) + encoded_field(9, content)


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    dimensions = b"".join(
        encoded_field(1, _integer(1, size) if isinstance(size, int) else encoded_field(2, size)) for size in shape
    )
    return encoded_field(1, name) + encoded_field(
        2, encoded_field(1, _integer(1, _FLOAT) + encoded_field(2, dimensions))
    )


def _integer(number: int, value: int) -> bytes:
    """A field of an integer that may be below zero."""
    return encoded_field(number, value % 2**64)
