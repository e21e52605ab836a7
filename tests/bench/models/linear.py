"""A matrix in each precision that is served, and what quantising it costs in nodes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.bench.models.weights import Array


class Nodes:
    """Collects nodes and weights."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._known: set[str] = set()

    def add(self, kind: str, inputs: list[str], outputs: list[str], *, domain: str = "", **attributes: Any) -> str:
        """Add a node; returns its first output."""
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=f"/{outputs[0]}", domain=domain, **attributes))
        return outputs[0]

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """Add a weight, unless there is one of this name; returns its name."""
        if name not in self._known:
            self._known.add(name)
            self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


class Linear:
    """Adds matrices in one precision: `fp32`, `int8-b32`, `int8-b128`, `int4-b32` (MatMulNBits, as the builder
    writes it) or `int8-row`: each row of the input and each column of the matrix has a scale of its own, so that
    a row's result depends on nothing beside it, and one integer product does the rest.
    """

    def __init__(self, nodes: Nodes, precision: str) -> None:
        self._nodes = nodes
        kind, _, grain = precision.partition("-")
        self._bits = {"fp32": 0, "int8": 8, "int4": 4}[kind]
        self._block = int(grain[1:]) if grain.startswith("b") else 0
        self._quantized: dict[str, tuple[str, str]] = {}  # source → its values and scales, for all who read it

    def add(self, name: str, source: str, parts: Sequence[Array], *, output: str = "") -> str:
        """The product of the source with the parts [out, in], one below the other."""
        matrix = np.concatenate(list(parts))
        if not self._bits:
            weight = self._nodes.weight(f"{name}.weight", matrix.T)
            return self._nodes.add("MatMul", [source, weight], [output or f"{name}.out"])
        if self._block:
            return self._add_blocks(name, source, matrix, output or f"{name}.out")
        return self._add_rows(name, source, matrix, output or f"{name}.out")

    def _add_blocks(self, name: str, source: str, matrix: Array, output: str) -> str:
        width, depth = matrix.shape
        values, scales = quantize(matrix.reshape(width, depth // self._block, self._block), self._bits)
        if self._bits == 4:
            values = values[..., ::2] | (values[..., 1::2] << 4)
        inputs = [source, self._nodes.weight(f"{name}.quantized", values), self._nodes.weight(f"{name}.scales", scales)]
        shape = {"K": depth, "N": width, "bits": self._bits, "block_size": self._block, "accuracy_level": 4}
        return self._nodes.add("MatMulNBits", inputs, [output], domain="com.microsoft", **shape)

    def _add_rows(self, name: str, source: str, matrix: Array, output: str) -> str:
        nodes = self._nodes
        values, scales = quantize(matrix, 8)
        weight, scale = nodes.weight(f"{name}.quantized", values.T), nodes.weight(f"{name}.scales", scales)
        zero = nodes.weight("zero_point", np.array(128, np.uint8))
        rows, row_scales = self._rows(source)
        product = nodes.add("MatMulInteger", [rows, weight, zero, zero], [f"{name}.integer"])
        product = nodes.add("Cast", [product], [f"{name}.float"], to=TensorProto.FLOAT)
        product = nodes.add("Mul", [product, row_scales], [f"{name}.scaled"])
        return nodes.add("Mul", [product, scale], [output])

    def _rows(self, source: str) -> tuple[str, str]:
        """The source in int8 with a scale for each row, made once for all who read it."""
        if source not in self._quantized:
            nodes = self._nodes
            axes = nodes.weight("last_axis", np.array([-1], np.int64))
            largest = nodes.add("Abs", [source], [f"{source}.abs"])
            largest = nodes.add("ReduceMax", [largest, axes], [f"{source}.largest"], keepdims=1)
            largest = nodes.add(
                "Max", [largest, nodes.weight("least", np.array(1e-12, np.float32))], [f"{source}.not_zero"]
            )
            scale = nodes.add(
                "Mul", [largest, nodes.weight("step", np.array(1 / 127, np.float32))], [f"{source}.scale"]
            )
            values = nodes.add("Div", [source, scale], [f"{source}.steps"])
            unit = nodes.weight("unit", np.array(1, np.float32))
            steps = nodes.add("QuantizeLinear", [values, unit, "zero_point"], [f"{source}.u8"])
            self._quantized[source] = (steps, scale)
        return self._quantized[source]


def quantize(blocks: Array, bits: int) -> tuple[NDArray[np.uint8], Array]:
    """Symmetric around the middle of the range, with one scale for the last axis; returns values and scales."""
    top = 2 ** (bits - 1) - 1
    scales = (np.abs(blocks).max(-1) / top).astype(np.float32)
    steps = np.rint(blocks / np.where(scales == 0, 1, scales)[..., None])
    return (steps + top + 1).astype(np.uint8), scales
