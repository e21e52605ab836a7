"""How a node of a graph is read, and written anew as one of our operators."""

from collections.abc import Mapping, Sequence

from tidemill_models.protobuf_wire import WireMessage, encoded_field

# Numbers of the fields in onnx.proto3.
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OP_TYPE, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER, _ATTRIBUTE_TYPE = 1, 3, 20
_INTEGER = 2  # a kind of attributes

DOMAIN = "tidemill"
PACKED = "packed "  # what the names of packed weights begin with


def operator_of(node: WireMessage) -> str:
    """A node's operator behind its domain; the domain of ONNX itself has no name."""
    domain = node.text_of(NODE_DOMAIN)
    return f"{'' if domain == 'ai.onnx' else domain}::{node.text_of(NODE_OP_TYPE)}"


def own_node(node: WireMessage, operator: str, inputs: Sequence[str], numbers: Mapping[str, int]) -> bytes:
    """A node with the same name and outputs that is our operator on these inputs."""
    parts = [encoded_field(NODE_INPUT, name) for name in inputs]
    parts += [encoded_field(NODE_OUTPUT, name) for name in node.texts(NODE_OUTPUT)]
    parts += [encoded_field(NODE_NAME, node.text_of(NODE_NAME)), encoded_field(NODE_OP_TYPE, operator)]
    parts += [encoded_field(NODE_ATTRIBUTE, _attribute(name, number)) for name, number in numbers.items()]
    return b"".join([*parts, encoded_field(NODE_DOMAIN, DOMAIN)])


def _attribute(name: str, number: int) -> bytes:
    return (
        encoded_field(_ATTRIBUTE_NAME, name)
        + encoded_field(_ATTRIBUTE_INTEGER, number)
        + encoded_field(_ATTRIBUTE_TYPE, _INTEGER)
    )
