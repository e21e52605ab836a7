"""Rewrites a graph so that our own kernels compute what they know of it, see `native/`.

Products, attention to the cache, norms and gates that follow from each other become one node, a program, and
the products' weights packed ones. All else stays as it is, byte by byte.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidemill_models.protobuf_wire import WireMessage, encoded_field
from tidemill_serving.decoder.devices.graph_nodes import (
    EXTERNAL,
    GRAPH_INITIALIZER,
    GRAPH_INPUT,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    TENSOR_DIMS,
    TENSOR_DTYPE,
    TENSOR_EXTERNAL,
    TENSOR_LOCATION,
    TENSOR_NAME,
    UINT8,
    Constants,
    Node,
    read_node,
    value_type,
)
from tidemill_serving.decoder.devices.program_steps import StepReader
from tidemill_serving.decoder.devices.programs import DOMAIN, Program, cut
from tidemill_serving.native.library import Kernels, Matrix, Packing, QuantizedMatrix, room_for

_MODEL_GRAPH, _MODEL_OPSET = 7, 8


@dataclass(frozen=True, slots=True)
class RewrittenGraph:
    """A graph whose packed weights lie beside it, by name; they are still written until `packing` is over."""

    model: bytes
    weights: dict[str, NDArray[np.uint8]]
    packing: Packing


def rewritten(model: WireMessage, folder: Path, kernels: Kernels, num_threads: int = 1) -> RewrittenGraph | None:
    """The model with our programs in it; None where nothing is rewritten. `folder` holds the files beside it.

    Its weights are packed by `num_threads`, meanwhile and after it.

    Raises GraphError, OSError, ValueError.
    """
    graph = model.message(_MODEL_GRAPH)
    nodes = [read_node(node) for node in graph.messages(GRAPH_NODE)]
    inputs = {value.text_of(1): value_type(value) for value in graph.messages(GRAPH_INPUT)}
    outputs = [value.text_of(1) for value in graph.messages(GRAPH_OUTPUT)]
    reader = StepReader(nodes, Constants(graph, folder), inputs, outputs, kernels)
    pieces: list[Program | Node] = list(cut(nodes, reader.read()))
    programs = [piece for piece in pieces if isinstance(piece, Program) and piece.is_worth_it()]
    if not programs:
        return None
    matrices: dict[str, Matrix] = {}
    for step in (step for program in programs for step in program.steps):
        matrices |= step.matrices
    rooms = _rooms_for(matrices.values(), kernels)
    packing = kernels.pack(list(zip(matrices.values(), rooms, strict=True)), num_threads)
    weights = dict(zip(matrices, rooms, strict=True))
    parts = [encoded_field(GRAPH_INITIALIZER, _packed_tensor(name, array.size)) for name, array in weights.items()]
    pieces = [
        left
        for piece in pieces
        for left in (piece.nodes_of(nodes) if isinstance(piece, Program) and not piece.is_worth_it() else [piece])
    ]
    read = set(outputs).union(*(piece.names_read for piece in pieces))
    pieces = [
        piece
        for piece in pieces
        if isinstance(piece, Program) or not reader.turns(piece) or not read.isdisjoint(piece.outputs)
    ]
    for piece in pieces:
        content = piece.content if isinstance(piece, Node) else piece.written(reader, kernels.version)
        parts.append(encoded_field(GRAPH_NODE, content))
    kept = set(outputs).union(*(piece.names_read for piece in pieces))
    gone = {name for program in programs for step in program.steps for name in step.constants} - kept
    parts += _other_fields(graph, gone)
    opset = encoded_field(_MODEL_OPSET, encoded_field(1, DOMAIN) + encoded_field(2, 1))
    return RewrittenGraph(_model(model, parts, opset), weights, packing)


def _rooms_for(matrices: Iterable[Matrix], kernels: Kernels) -> list[NDArray[np.uint8]]:
    return room_for(
        [
            kernels.packed_bytes(matrix) if isinstance(matrix, QuantizedMatrix) else kernels.packed_float_bytes(matrix)
            for matrix in matrices
        ]
    )


def _other_fields(graph: WireMessage, gone: set[str]) -> Iterator[bytes]:
    for number, value in graph.fields():
        if isinstance(value, int):
            yield encoded_field(number, value)
        elif number != GRAPH_NODE and not (number == GRAPH_INITIALIZER and value.text_of(TENSOR_NAME) in gone):
            yield encoded_field(number, value.content())


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
    place = encoded_field(1, "location") + encoded_field(2, ".")
    return b"".join(
        [
            encoded_field(TENSOR_DIMS, num_bytes),
            encoded_field(TENSOR_DTYPE, UINT8),
            encoded_field(TENSOR_NAME, name),
            encoded_field(TENSOR_EXTERNAL, place),
            encoded_field(TENSOR_LOCATION, EXTERNAL),
        ]
    )
