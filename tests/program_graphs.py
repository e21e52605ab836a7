"""Graphs of several nodes for our programs, node by node, and sessions of them."""

import struct
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from tests.kernels import Matrix, random_matrix
from tests.unit.models.onnx_bytes import FLOAT, field, model, node, varint
from tidemill_models.protobuf_wire import WireMessage
from tidemill_serving.decoder.devices.graph_nodes import Node, read_node
from tidemill_serving.decoder.devices.own_kernels import rewritten
from tidemill_serving.native.library import find_kernels

_UINT8 = 2
PROGRAM = "tidemill::DecoderProgram"


def number(name: str, value: float) -> bytes:
    return field(5, field(1, name) + b"\x15" + struct.pack("<f", value) + field(20, 1))


def integer(name: str, value: int) -> bytes:
    return field(5, field(1, name) + field(3, value % (1 << 64)) + field(20, 2))


class Graph:
    """A graph that grows; `rows` is its input, [n, depth]."""

    def __init__(self, depth: int) -> None:
        self.inputs = {"rows": (FLOAT, ["n", depth])}
        self.outputs: dict[str, tuple[int, list[int | str | None]]] = {}
        self.nodes: list[bytes] = []
        self.tensors: list[bytes] = []

    def add(self, kind: str, inputs: tuple[str, ...], outputs: tuple[str, ...], *attributes: bytes) -> None:
        named = b"".join(field(2, name) for name in outputs)
        self.nodes.append(node(kind, inputs, attributes=named + b"".join(attributes)))

    def constant(self, name: str, array: NDArray[np.generic]) -> None:
        dims = field(1, b"".join(varint(size) for size in array.shape))
        kind = field(2, FLOAT if array.dtype == np.float32 else _UINT8)
        self.tensors.append(dims + kind + field(8, name) + field(9, array.tobytes()))

    def product(self, rows: str, output: str, depth: int, width: int, *, bits: int = 8, block: int = 32) -> Matrix:
        matrix = random_matrix(len(self.nodes), depth, width, bits=bits, block=block, zero_points=False)
        self.constant(f"{output} values", matrix.values)
        self.constant(f"{output} scales", matrix.scales)
        shape = {"K": depth, "N": width, "bits": bits, "block_size": block, "accuracy_level": 4}
        inputs = (rows, f"{output} values", f"{output} scales")
        kind = "com.microsoft::MatMulNBits"
        self.add(kind, inputs, (output,), *(integer(name, value) for name, value in shape.items()))
        return matrix

    def norm(self, rows: str, output: str, width: int, *, skip: str = "", total: str = "") -> NDArray[np.float32]:
        gamma = np.random.default_rng(len(self.nodes)).uniform(0.5, 2, width).astype(np.float32)
        self.constant(f"{output} gamma", gamma)
        epsilon = number("epsilon", 1e-5)
        if skip:
            inputs, outputs = (rows, skip, f"{output} gamma"), (output, "", "", total)[: 4 if total else 1]
            self.add("com.microsoft::SkipSimplifiedLayerNormalization", inputs, outputs, epsilon)
        else:
            self.add("SimplifiedLayerNormalization", (rows, f"{output} gamma"), (output,), epsilon, integer("axis", -1))
        return gamma

    def gate(self, gate: str, up: str, output: str, *, as_builder_writes: bool = True) -> None:
        if as_builder_writes:
            self.add("Sigmoid", (gate,), (f"{output} sigmoid",))
            self.add("Mul", (gate, f"{output} sigmoid"), (f"{output} silu",))
        else:
            self.add("com.microsoft::QuickGelu", (gate,), (f"{output} silu",), number("alpha", 1.0))
        self.add("Mul", (f"{output} silu", up), (output,))

    def give(self, name: str, width: int) -> None:
        self.outputs[name] = (FLOAT, ["n", width])

    def content(self) -> bytes:
        opsets = [("", 21), ("com.microsoft", 1)]
        rest = b"".join(field(8, field(1, domain) + field(2, version)) for domain, version in opsets)
        return model(self.inputs, self.outputs, self.nodes, self.tensors, rest)  # type: ignore[arg-type]

    def kinds(self) -> list[str]:
        """Of the nodes of the rewritten graph; nothing where it stays what it is."""
        return [each.kind for each in self.rewritten_nodes()]

    def rewritten_nodes(self) -> list[Node]:
        content = self.content()
        graph = rewritten(WireMessage(content, 0, len(content)), Path(), find_kernels())
        if graph is None:
            return []
        return [read_node(each) for each in WireMessage(graph.model, 0, len(graph.model)).message(7).messages(1)]

    def run(
        self, rows: NDArray[np.float32], *, own: bool = True, num_threads: int = 2
    ) -> dict[str, NDArray[np.float32]]:
        session = session_of(self, own=own, num_threads=num_threads)
        return dict(zip(self.outputs, session.run(list(self.outputs), {"rows": rows}), strict=True))


def session_of(graph: Graph, *, own: bool = True, num_threads: int = 2) -> ort.InferenceSession:
    """A session of the graph as our kernels have it, or as it stands."""
    content = graph.content()
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 4
    if own:
        changed = rewritten(WireMessage(content, 0, len(content)), Path(), find_kernels())
        options.register_custom_ops_library(str(find_kernels().path))
        changed.packing.wait()
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in changed.weights.values()]
        options.add_external_initializers(list(changed.weights), values)
        content = changed.model
    return ort.InferenceSession(content, options)
