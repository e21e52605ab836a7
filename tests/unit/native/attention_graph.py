"""A graph of one attention to a cache, ONNX Runtime's and ours, and runs of it."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from tests.unit.models.onnx_bytes import GQA, field, model, node
from tidemill_models.protobuf_wire import WireMessage
from tidemill_serving.decoder.devices.own_kernels import rewritten
from tidemill_serving.native.library import find_kernels

FLOAT, INT32 = 1, 6
NUM_POSITIONS = 512  # of the tables of angles
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Kind:
    """How an export attends."""

    num_heads: int = 6
    num_kv_heads: int = 2
    head_size: int = 16
    rotary_size: int = 16  # 0: the export turns nothing
    is_interleaved: bool = False
    is_packed: bool = False  # query, key and value are one input
    scale: float = 0.0

    @property
    def width(self) -> int:
        return self.num_heads * self.head_size

    @property
    def kv_width(self) -> int:
        return self.num_kv_heads * self.head_size


def integer(name: str, value: int) -> bytes:
    return field(5, field(1, name) + field(3, value % (1 << 64)) + field(20, 2))


def number(name: str, value: float) -> bytes:
    return field(5, field(1, name) + b"\x15" + struct.pack("<f", value) + field(20, 1))


def text(name: str, value: str) -> bytes:
    return field(5, field(1, name) + field(4, value) + field(20, 3))


def stock_node(kind: Kind, *more: bytes, inputs: tuple[str, ...] = ()) -> bytes:
    """As the standard builder writes it."""
    taken = ("query", "", "") if kind.is_packed else ("query", "key", "value")
    taken += ("past_key", "past_value", "lengths", "total")
    taken += ("cosines", "sines") if kind.rotary_size else ()
    attributes = integer("num_heads", kind.num_heads) + integer("kv_num_heads", kind.num_kv_heads)
    attributes += integer("do_rotary", int(kind.rotary_size > 0))
    attributes += integer("rotary_interleaved", int(kind.is_interleaved)) + number("scale", kind.scale)
    outputs = b"".join(field(2, name) for name in ("output", "present_key", "present_value"))
    return node(GQA, taken + inputs, attributes=outputs + attributes + b"".join(more))


def model_of(kind: Kind, content: bytes, element_type: int = FLOAT) -> bytes:
    """The graph with this one node."""
    cache = (element_type, ["b", kind.num_kv_heads, "p", kind.head_size])
    inputs = {"query": (FLOAT, ["b", "s", "w"]), "past_key": cache, "past_value": cache}
    inputs |= {"lengths": (INT32, ["b"]), "total": (INT32, [1])}
    if not kind.is_packed:
        inputs |= {name: (FLOAT, ["b", "s", kind.kv_width]) for name in ("key", "value")}
    if kind.rotary_size:
        inputs |= {name: (FLOAT, ["n", kind.rotary_size // 2]) for name in ("cosines", "sines")}
    outputs = {"output": (FLOAT, ["b", "s", kind.width]), "present_key": cache, "present_value": cache}
    opsets = [("", 21), ("com.microsoft", 1)]
    rest = b"".join(field(8, field(1, domain) + field(2, version)) for domain, version in opsets)
    return model(inputs, outputs, [content], rest=rest)


def own_model(kind: Kind, stock: bytes, element_type: int = FLOAT) -> bytes | None:
    """The same with our kernel, if it can be."""
    content = model_of(kind, stock, element_type)
    graph = rewritten(WireMessage(content, 0, len(content)), Path(), find_kernels())
    return None if graph is None else graph.model


def session_of(content: bytes) -> ort.InferenceSession:
    """A session of a model's bytes."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    options.register_custom_ops_library(str(find_kernels().path))
    return ort.InferenceSession(content, options)


def angles(kind: Kind) -> dict[str, Array]:
    """The tables of a usual model."""
    if not kind.rotary_size:
        return {}
    steps = 10_000.0 ** -np.linspace(0, 1, kind.rotary_size // 2)
    turns = np.arange(NUM_POSITIONS)[:, None] * steps
    return {"cosines": np.cos(turns).astype(np.float32), "sines": np.sin(turns).astype(np.float32)}


@dataclass(frozen=True)
class Tokens:
    """New tokens of some sequences [b, s, ...], not yet turned."""

    query: Array
    key: Array
    value: Array

    @classmethod
    def drawn(cls, kind: Kind, num_sequences: int, num_tokens: int, seed: int) -> "Tokens":
        chance = np.random.default_rng(seed)
        shapes = [(num_sequences, num_tokens, width) for width in (kind.width, kind.kv_width, kind.kv_width)]
        return cls(*(chance.standard_normal(shape).astype(np.float32) for shape in shapes))

    def of(self, rows: slice, tokens: slice) -> "Tokens":
        return Tokens(self.query[rows, tokens], self.key[rows, tokens], self.value[rows, tokens])

    def feed(self, kind: Kind) -> dict[str, Array]:
        if kind.is_packed:
            return {"query": np.concatenate([self.query, self.key, self.value], axis=2)}
        return {name: np.ascontiguousarray(getattr(self, name)) for name in ("query", "key", "value")}


class Cache:
    """A cache of `capacity` positions, past and present in one."""

    def __init__(self, kind: Kind, num_sequences: int, capacity: int, fill: float = 0.0) -> None:
        self.kind = kind
        shape = (num_sequences, kind.num_kv_heads, capacity, kind.head_size)
        self.keys, self.values = np.full(shape, fill, np.float32), np.full(shape, fill, np.float32)

    def run(
        self, session: ort.InferenceSession, tokens: Tokens, lengths: list[int], rows: slice = slice(None)
    ) -> Array:
        """Append tokens to the sequences `rows`, `lengths` long then, and return the output."""
        binding = session.io_binding()
        feed = tokens.feed(self.kind) | angles(self.kind)
        feed |= {"lengths": np.array(lengths, np.int32) - 1, "total": np.array([max(lengths)], np.int32)}
        for name, array in feed.items():
            binding.bind_cpu_input(name, array)
        for name, array in (("key", self.keys), ("value", self.values)):
            view = ort.OrtValue.ortvalue_from_numpy(array[rows])
            binding.bind_ortvalue_input(f"past_{name}", view)
            binding.bind_ortvalue_output(f"present_{name}", view)
        output = np.zeros((*tokens.query.shape[:2], self.kind.width), np.float32)
        binding.bind_ortvalue_output("output", ort.OrtValue.ortvalue_from_numpy(output))
        session.run_with_iobinding(binding)
        return output
