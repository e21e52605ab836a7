"""Graphs of one quantised product, a model of our products' arithmetic in numpy, and who may run them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.models.onnx_bytes import field, value_info, varint
from tidemill_models.protobuf_wire import WireMessage
from tidemill_serving.decoder.devices.ort_session import SessionSettings, open_session
from tidemill_serving.decoder.devices.own_kernels import RewrittenGraph, rewritten
from tidemill_serving.native.library import Kernels, find_kernels

needs_kernels = pytest.mark.skipif(
    find_kernels() is None, reason="our own kernels were not built here, or this processor has no AVX2 and FMA"
)
_FLOAT, _UINT8 = 1, 2


@dataclass(frozen=True)
class Matrix:
    """A quantised matrix as MatMulNBits holds it, and what its weights are as floats."""

    depth: int
    width: int
    bits: int
    block: int
    values: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray | None

    @property
    def steps(self) -> np.ndarray:
        """Weights less their zero points, int32 [width, blocks, block]."""
        if self.bits == 8:
            weights, points = self.values, self.zero_points
        else:
            weights = np.stack([self.values & 15, self.values >> 4], -1)
            points = None if self.zero_points is None else np.stack([self.zero_points & 15, self.zero_points >> 4], -1)
        blocks = -(-self.depth // self.block)
        weights = weights.reshape(self.width, blocks, self.block).astype(np.int32)
        if points is None:
            return weights - (1 << (self.bits - 1))
        return weights - points.reshape(self.width, -1)[:, :blocks, None].astype(np.int32)


def random_matrix(seed: int, depth: int, width: int, *, bits: int, block: int, zero_points: bool) -> Matrix:
    """Any weights, any scales."""
    draw = np.random.default_rng(seed)
    blocks = -(-depth // block)
    values = draw.integers(0, 256, (width, blocks, block * bits // 8), np.uint8)
    scales = draw.uniform(-0.02, 0.02, (width, blocks)).astype(np.float32)
    points = draw.integers(0, 256, (width, -(-blocks * bits // 8)), np.uint8) if zero_points else None
    return Matrix(depth, width, bits, block, values, scales, points)


def expected(matrix: Matrix, rows: np.ndarray) -> np.ndarray:
    """The product by the arithmetic of product.h: the sum over blocks with one rounding for each block."""
    blocks = -(-matrix.depth // matrix.block)
    padded = np.zeros((len(rows), blocks * matrix.block), np.float32)
    padded[:, : matrix.depth] = rows
    padded = padded.reshape(len(rows), blocks, matrix.block)
    largest = np.abs(padded).max(-1)
    with np.errstate(divide="ignore"):
        factors = np.where(largest < 1e-30, np.float32(0), np.float32(127) / largest).astype(np.float32)
    steps = np.rint(padded * factors[..., None]).astype(np.int64)
    sums = np.einsum("rbk,wbk->brw", steps, matrix.steps.astype(np.int64))
    scales = np.where(largest < 1e-30, np.float32(0), largest / np.float32(127)).astype(np.float32)
    total = np.zeros((len(rows), matrix.width), np.float32)
    for block in range(blocks):
        scale = scales[:, block, None] * matrix.scales[None, :, block]  # float32, as a product of two floats is
        exact = sums[block].astype(np.float32).astype(np.float64) * scale.astype(np.float64) + total
        total = exact.astype(np.float32)
    return total


def write_graph(path: Path, matrix: Matrix, *, accuracy_level: int = 4, external: bool = False) -> Path:
    """A graph of one MatMulNBits; its weights in it, or in a file beside it."""
    arrays: dict[str, np.ndarray] = {"values": matrix.values, "scales": matrix.scales}
    if matrix.zero_points is not None:
        arrays["points"] = matrix.zero_points
    numbers = {"K": matrix.depth, "N": matrix.width, "bits": matrix.bits, "block_size": matrix.block}
    attributes = b"".join(
        field(5, field(1, name) + field(3, number) + field(20, 2))
        for name, number in {**numbers, "accuracy_level": accuracy_level}.items()
    )
    named = b"".join(field(1, name) for name in ("rows", *arrays)) + field(2, "product")
    graph = field(1, named + field(4, "MatMulNBits") + attributes + field(7, "com.microsoft")) + field(2, "product")
    place, content = path.with_suffix(".bin"), b""
    for name, array in arrays.items():
        raw = array.tobytes()
        where = field(9, raw)
        if external:
            entries = {"location": place.name, "offset": str(len(content)), "length": str(len(raw))}
            where = b"".join(field(13, field(1, key) + field(2, text)) for key, text in entries.items()) + field(14, 1)
            content += raw
        dims = field(1, b"".join(varint(size) for size in array.shape))
        graph += field(5, dims + field(2, _FLOAT if array.dtype == np.float32 else _UINT8) + field(8, name) + where)
    graph += field(11, value_info("rows", _FLOAT, ["n", matrix.depth]))
    graph += field(12, value_info("product", _FLOAT, ["n", matrix.width]))
    opsets = field(8, field(1, "") + field(2, 21)) + field(8, field(1, "com.microsoft") + field(2, 1))
    path.write_bytes(field(1, 10) + field(7, graph) + opsets)
    if external:
        place.write_bytes(content)
    return path


def rewritten_graph(graph: Path, kernels: Kernels) -> RewrittenGraph | None:
    """The graph as our kernels have it; None where they know nothing of it."""
    content = graph.read_bytes()
    found = rewritten(WireMessage(content, 0, len(content)), graph.parent, kernels)
    if found is not None:
        found.packing.wait()
    return found


def product_of(graph: Path, kernels: str, *, num_threads: int = 1) -> Any:
    """What the graph's session computes of rows."""
    session = open_session(graph, SessionSettings(num_threads, spinning=False, kernels=kernels))  # type: ignore[arg-type]
    return lambda rows: session.run(["product"], {"rows": rows})[0]
