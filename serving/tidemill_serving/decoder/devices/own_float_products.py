"""Finds the products of float32 rows with constant matrices that our own operator computes, see `native/`.

A matrix that is turned on its way to the product, as where an embedding serves as the head too, is packed turned.
A graph that writes its attention out, with a Softmax, stays: ONNX Runtime fuses its products with what is around them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill_models.protobuf_wire import WireMessage
from tidemill_serving.decoder.devices.operator_nodes import (
    NODE_ATTRIBUTE,
    NODE_INPUT,
    NODE_OUTPUT,
    PACKED,
    operator_of,
    own_node,
)
from tidemill_serving.native.library import Kernels

_ATTRIBUTE_INTEGERS = 8
_TURNED = [1, 0]

Constant = Callable[[str], NDArray[Any] | None]  # a float32 constant by its name, in its shape


@dataclass(frozen=True, slots=True)
class FloatProduct:
    """A MatMul to be rewritten, and what it multiplies with."""

    node: WireMessage
    values: NDArray[np.float32]  # [depth, width]
    constants: tuple[str]  # the weights' name
    is_turned: bool

    @property
    def packed_name(self) -> str:
        """The packed weights' name."""
        depth, width = self.values.shape
        return f"{PACKED}{self.constants[0]} {depth}x{width}{' turned' if self.is_turned else ''}"

    def packed_bytes(self, kernels: Kernels) -> int:
        """How many bytes they have."""
        return kernels.packed_float_bytes(self.values)

    def pack(self, kernels: Kernels, room: NDArray[np.uint8]) -> None:
        """Write them."""
        kernels.pack_float(self.values, room)

    def written(self, kernels: Kernels) -> bytes:
        """The node as ours."""
        depth, width = self.values.shape
        numbers = {"depth": depth, "width": width, "version": kernels.float_version}
        return own_node(self.node, "PackedMatMul", [self.node.texts(NODE_INPUT)[0], self.packed_name], numbers)


class FloatProducts:
    """Looks for them in the nodes of one graph."""

    def __init__(self, nodes: Sequence[WireMessage], constant: Constant, kernels: Kernels) -> None:
        self._constant = constant
        self._kernels = kernels
        self._is_wanted = kernels.multiplies_floats and not any(operator_of(node) == "::Softmax" for node in nodes)
        self._turned = {node.texts(NODE_OUTPUT)[0]: node for node in nodes if _turns(node)}

    def find(self, node: WireMessage) -> FloatProduct | None:
        """The node's product, if our operator computes it as well."""
        names = node.texts(NODE_INPUT)
        if not self._is_wanted or operator_of(node) != "::MatMul" or len(names) != 2:
            return None
        turn = self._turned.get(names[1])
        name = names[1] if turn is None else turn.texts(NODE_INPUT)[0]
        values = self._constant(name)
        if values is None or values.ndim != 2:
            return None
        product = FloatProduct(node, values if turn is None else values.T, (name,), turn is not None)
        return product if product.packed_bytes(self._kernels) else None

    def is_idle(self, node: WireMessage, names_read: set[str]) -> bool:
        """Whether a node turned a matrix for products alone that are ours now."""
        return _turns(node) and self._is_wanted and node.texts(NODE_OUTPUT)[0] not in names_read


def _turns(node: WireMessage) -> bool:
    if operator_of(node) != "::Transpose":
        return False
    orders = [attribute.integers(_ATTRIBUTE_INTEGERS) for attribute in node.messages(NODE_ATTRIBUTE)]
    return orders in ([], [_TURNED])
