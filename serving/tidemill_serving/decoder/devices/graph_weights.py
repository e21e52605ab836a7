"""The large weights of a graph, where they lie in its files: a session is handed them beside the graph.

Within a graph they would be there several times: in its bytes, in what ONNX Runtime reads out of these, and as tensors.
Beside it they are read from the page cache, which all replicas of a model on a host share.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill_models.protobuf_wire import WireMessage, encoded_field
from tidemill_serving.decoder.devices.mapped_file import fetch, leave_small, let_go, mapped_file

# Numbers of the fields in onnx.proto3.
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT = 7, 1, 5, 11
_NODE_INPUT, _NODE_OP_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 4, 5, 7
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_TENSOR_DIMS, _TENSOR_DTYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 2, 8, 9, 13, 14
_EXTERNAL = 1
_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    10: np.dtype(np.float16),
}
_PACKED = "packed "  # what the names of weights begin with that our own kernels read, all of them at each step
_PREPACKED = "prepacked"  # what the entries begin with of weights that ONNX Runtime packed, and maps itself
_MIN_BYTES = 1 << 16  # smaller ones stay in the graph


class Weights:
    """Weights by name, as views of files that are mapped."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where the graph lies."""
        self.arrays: dict[str, NDArray[Any]] = {}
        self._folder = folder
        self._files: dict[str, NDArray[np.uint8]] = {}

    def add(self, tensor: WireMessage, *, anywhere: bool) -> None:
        """Add those of a tensor that lie in a file beside the graph, unless ONNX Runtime had better map them itself.

        So it is with what it packed, and with numbers that do not begin where a processor reads them best, unless they
        are read `anywhere`. Raises GraphError, OSError, ValueError.
        """
        entries, dtype = _entries(tensor), _DTYPES.get(tensor.integer(_TENSOR_DTYPE))
        dims = tensor.integers(_TENSOR_DIMS)
        num_bytes = math.prod(dims) * dtype.itemsize if dtype else 0
        location, offset = entries.get("location", ""), entries.get("offset", "0")
        if num_bytes < _MIN_BYTES or PurePath(location).name != location or not offset.isdecimal():
            return
        if any(key.startswith(_PREPACKED) for key in entries) or int(entries.get("length", num_bytes)) != num_bytes:
            return
        if location not in self._files:
            self._files[location] = mapped_file(self._folder / location)
        content = self._files[location][int(offset) :][:num_bytes]
        if len(content) == num_bytes:
            array = np.frombuffer(content.data, dtype).reshape(dims)
            if array.flags.aligned or anywhere:
                self.arrays[tensor.text_of(_TENSOR_NAME)] = array

    def fetch_packed(self) -> None:
        """Have what our kernels read in memory; of the others a run reads a row here and there."""
        for name, array in self.arrays.items():
            if not name.startswith(_PACKED):
                leave_small(array)
        fetch(array for name, array in self.arrays.items() if name.startswith(_PACKED))

    def let_go(self) -> None:
        """Of what was read once, to be packed, nothing need stay in memory; it may still be read."""
        for file in self._files.values():
            let_go(file)


def light_graph(graph: Path) -> bytes:
    """The graph, but for its large weights: of each it says where in its file it lies.

    Raises GraphError, OSError, ValueError.
    """
    content = mapped_file(graph)
    model = WireMessage(content.data, 0, len(content))
    inner = model.message(_MODEL_GRAPH)
    replaceable = _inputs(inner)
    fields = []
    for number, value in inner.fields():
        if number == _GRAPH_INITIALIZER and isinstance(value, WireMessage):
            raw = value.message(_TENSOR_RAW)
            is_known = value.integer(_TENSOR_DTYPE) in _DTYPES and value.text_of(_TENSOR_NAME) not in replaceable
            if is_known and len(raw.content()) >= _MIN_BYTES:
                fields.append(encoded_field(number, _pointing(value, graph.name, raw)))
                continue
        fields.append(encoded_field(number, value if isinstance(value, int) else value.content()))
    parts = [
        encoded_field(number, value if isinstance(value, int) else value.content())
        for number, value in model.fields()
        if number != _MODEL_GRAPH
    ]
    return b"".join([*parts, encoded_field(_MODEL_GRAPH, b"".join(fields))])


def weights_of(model: bytes, folder: Path, *, handed: Iterable[str] = ()) -> Weights:
    """The large weights that lie in files in `folder`, but for those that are `handed` over already.

    Raises GraphError, OSError, ValueError.
    """
    graph = WireMessage(model, 0, len(model)).message(_MODEL_GRAPH)
    left_out, rows = _inputs(graph) | set(handed), _read_by_rows(graph)
    weights = Weights(folder)
    for tensor in graph.messages(_GRAPH_INITIALIZER):
        if (name := tensor.text_of(_TENSOR_NAME)) not in left_out and tensor.integer(_TENSOR_LOCATION) == _EXTERNAL:
            weights.add(tensor, anywhere=name in rows)
    return weights


def _pointing(tensor: WireMessage, file: str, raw: WireMessage) -> bytes:
    """The tensor with the place of its numbers instead of them."""
    place = {"location": file, "offset": str(raw.start), "length": str(len(raw.content()))}
    parts = [
        encoded_field(number, value if isinstance(value, int) else value.content())
        for number, value in tensor.fields()
        if number not in (_TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION)
    ]
    for key, value in place.items():
        parts.append(encoded_field(_TENSOR_EXTERNAL, encoded_field(1, key) + encoded_field(2, value)))
    return b"".join([*parts, encoded_field(_TENSOR_LOCATION, _EXTERNAL)])


def _read_by_rows(graph: WireMessage) -> set[str]:
    """The tables that only a Gather reads, which copies rows out of them byte by byte."""
    reads: Counter[str] = Counter()
    tables: Counter[str] = Counter()
    for node in graph.messages(_GRAPH_NODE):
        names = node.texts(_NODE_INPUT)
        reads.update(names)
        if node.text_of(_NODE_OP_TYPE) == "Gather" and not node.text_of(_NODE_DOMAIN):
            tables[names[0]] += 1
        for attribute in node.messages(_NODE_ATTRIBUTE):
            if any(number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS) for number, _ in attribute.fields()):
                return set()  # who knows what is read in there
    return {name for name, count in tables.items() if reads[name] == count}


def _inputs(graph: WireMessage) -> set[str]:
    """What callers hand in: a weight among these may be replaced by them."""
    return {value.text_of(1) for value in graph.messages(_GRAPH_INPUT)}


def _entries(tensor: WireMessage) -> Mapping[str, str]:
    return {entry.text_of(1): entry.text_of(2) for entry in tensor.messages(_TENSOR_EXTERNAL)}
