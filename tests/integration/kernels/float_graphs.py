"""Graphs of one product of float32, and of an embedding that is the head too."""

from pathlib import Path

import numpy as np

from tests.unit.models.onnx_bytes import FLOAT, INT64, field, node, value_info
from tidemill_serving.decoder.devices.ort_session import SessionSettings, open_session

_INTEGERS = 7  # a kind of attributes


def product(left: str, right: str, output: str) -> bytes:
    """A MatMul."""
    return node("MatMul", (left, right)) + field(2, output)


def turned(name: str, output: str) -> bytes:
    """A Transpose."""
    order = field(1, "perm") + field(8, b"\x01\x00") + field(20, _INTEGERS)
    return node("Transpose", (name,), attributes=field(5, order)) + field(2, output)


def write(path: Path, nodes: list[bytes], weights: dict[str, np.ndarray], rows: int, output: list[int | str]) -> Path:
    """A graph of these nodes from `rows` (as an embedding's, `ids`) to `product`; no rows: its input are `ids`."""
    content = b"".join(field(1, each) for each in nodes) + field(2, "products")
    for name, array in weights.items():
        dims = b"".join(field(1, size) for size in array.shape)
        content += field(5, dims + field(2, FLOAT) + field(8, name) + field(9, array.tobytes()))
    given = value_info("rows", FLOAT, ["n", rows]) if rows else value_info("ids", INT64, ["n"])
    content += field(11, given) + field(12, value_info("product", FLOAT, output))
    path.write_bytes(field(1, 10) + field(7, content) + field(8, field(1, "") + field(2, 21)))
    return path


def write_product(path: Path, weights: np.ndarray) -> Path:
    """rows [n, depth] by weights [depth, width]."""
    depth, width = weights.shape
    return write(path, [product("rows", "weights", "product")], {"weights": weights}, depth, ["n", width])


def computed(graph: Path, kernels: str, *, num_threads: int = 1):
    """What the graph's session makes of its input."""
    session = open_session(graph, SessionSettings(num_threads, spinning=False, kernels=kernels))
    name = session.get_inputs()[0].name
    return lambda given: session.run(["product"], {name: given})[0]
