"""Rewrites tests/models/tiny-llama so that its graph grows the cache, as exports without GroupQueryAttention do.

Each GroupQueryAttention node gives way to plain operators that compute the same, so the answers stay those of the
stored reference. The kinds differ in what such exports were seen to do.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.unit.models.onnx_bytes import field, value_info
from tidemill_models.digests import digest_files
from tidemill_models.protobuf_wire import WireMessage

TINY = Path(__file__).parent / "models" / "tiny-llama" / "model.onnx"
_BOOL, _FLOAT, _INT64 = 9, 1, 7
_GRAPH, _NODE, _INITIALIZER, _INPUT = 7, 1, 5, 11


@dataclass(frozen=True)
class Kind:
    """How a growing export behaves."""

    positions: str = "told"  # told: an input; masked: counted in the mask; width: counted from the past's width
    is_merged: bool = False  # takes use_cache_branch
    is_causal_with_past: bool = True  # False: traced with one token, so several with a past see each other
    is_quantised: bool = False  # activations scaled over the whole batch


KINDS = {
    "positions told": Kind(),
    "positions from the mask": Kind(positions="masked"),
    "positions from the width": Kind(positions="width"),
    "merged": Kind(is_merged=True),
    "one token with a past": Kind(is_causal_with_past=False),
    "dynamic int8": Kind(is_quantised=True),
}


def write_growing_graph(path: Path, kind: Kind) -> Path:
    """Write the graph; returns `path`."""
    content = TINY.read_bytes()
    model = b"".join(
        field(number, _graph(value, kind) if number == _GRAPH else _bytes_of(value))
        for number, value in WireMessage(content, 0, len(content)).fields()
    )
    path.write_bytes(model)
    return path


def write_growing_package(folder: Path, kind: Kind, cache: str = 'cache = "grows"\n') -> Path:
    """The package tiny-llama with a graph of that kind; `cache` is what its manifest says of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "chat.jinja"):
        (folder / name).write_bytes((TINY.parent / name).read_bytes())
    write_growing_graph(folder / "model.onnx", kind)
    head = (TINY.parent / "model.toml").read_text().partition("[files]")[0]
    files = [
        f'"{name}" = {{ sha256 = "{digest.sha256}", bytes = {digest.bytes} }}\n'
        for name, digest in digest_files(folder).items()
    ]
    head = head.replace("eos_token_ids", f"{cache}eos_token_ids")
    (folder / "model.toml").write_text(f"{head}[files]\n{''.join(files)}")
    return folder


def _graph(graph: WireMessage, kind: Kind) -> bytes:
    parts, layer = [field(_NODE, each) for each in _common_nodes(kind)], 0
    for number, value in graph.fields():
        if number == _NODE and value.text_of(4) == "GroupQueryAttention":
            parts += [field(_NODE, each) for each in _attention(layer, value, kind)]
            layer += 1
        else:
            parts.append(field(number, _bytes_of(value)))
    if kind.positions == "told":
        parts.append(field(_INPUT, value_info("position_ids", _INT64, ["batch_size", "sequence_length"])))
    if kind.is_merged:
        parts.append(field(_INPUT, value_info("use_cache_branch", _BOOL, [1])))
    parts += [field(_INITIALIZER, each) for each in _constants()]
    return b"".join(parts)


def _bytes_of(value: int | WireMessage) -> int | bytes:
    return value if isinstance(value, int) else value._buffer[value._start : value._end]


def _node(op_type: str, inputs: str, outputs: str, **attributes: int | list[int]) -> bytes:
    """One node of ONNX's own operators; names are separated by spaces."""
    named = b"".join(field(1, name) for name in inputs.split())
    named += b"".join(field(2, name) for name in outputs.split())
    written = b""
    for name, value in attributes.items():
        if isinstance(value, int):
            written += field(5, field(1, name) + field(3, value) + field(20, 2))
        else:
            written += field(5, field(1, name) + b"".join(field(8, each) for each in value) + field(20, 7))
    return named + field(4, op_type) + written


def _constants() -> Iterator[bytes]:
    numbers = {
        "c_heads": [64, 32, 32], "c_halves": [8, 8], "c_q": [0, 0, 2, 2, 16], "c_kv": [0, 0, 2, 16],
        "c_out": [0, 0, 64],
        "c_0": [0], "c_1": [1], "c_2": [2], "c_1_2": [1, 2], "c_1_2_3": [1, 2, 3], "c_last": [2**63 - 1],
    }  # fmt: skip
    for name, values in numbers.items():
        content = struct.pack(f"<{len(values)}q", *values)
        yield field(1, len(values)) + field(2, _INT64) + field(8, name) + field(9, content)
    for name, value in {"s_0": 0, "s_1": 1, "s_2": 2}.items():
        yield field(2, _INT64) + field(8, name) + field(9, struct.pack("<q", value))
    for name, value in {"f_scale": 0.25, "f_never": -1e9}.items():
        yield field(2, _FLOAT) + field(8, name) + field(9, struct.pack("<f", value))


def _common_nodes(kind: Kind) -> Iterator[bytes]:
    """The past's width, the positions and what each token may see: the same in all layers."""
    yield _node("Shape", "past_key_values.0.key", "g_past_shape")
    yield _node("Gather", "g_past_shape s_2", "g_past_width")
    if kind.is_merged:
        yield _node("Squeeze", "use_cache_branch", "g_has_past")
        yield _node("Where", "g_has_past g_past_width s_0", "g_past")
    else:
        yield _node("Identity", "g_past_width", "g_past")
    yield _node("Unsqueeze", "g_past s_0", "g_past_1")
    yield _node("Shape", "input_ids", "g_ids_shape")
    yield _node("Gather", "g_ids_shape s_1", "g_new")
    yield _node("Add", "g_past g_new", "g_total")
    yield _node("Range", "s_0 g_total s_1", "g_columns")
    yield _node("Range", "g_past g_total s_1", "g_own")
    yield _node("Unsqueeze", "g_own c_1", "g_own_column")
    yield _node("LessOrEqual", "g_columns g_own_column", "g_causal")
    if not kind.is_causal_with_past:
        yield _node("Greater", "g_past s_0", "g_any_past")
        yield _node("Or", "g_causal g_any_past", "g_seen")
    else:
        yield _node("Identity", "g_causal", "g_seen")
    yield _node("Cast", "attention_mask", "g_mask", to=_BOOL)
    yield _node("Unsqueeze", "g_mask c_1_2_3", "g_mask_rows")
    yield _node("And", "g_seen g_mask_rows", "g_allowed")
    if kind.positions == "masked":
        yield _node("CumSum", "attention_mask s_1", "g_counts")
        yield _node("Sub", "g_counts s_1", "g_counted")
        yield _node("Slice", "g_counted g_past_1 c_last c_1", "g_positions")
    elif kind.positions == "width":
        yield _node("Expand", "g_own g_ids_shape", "g_positions")
    else:
        yield _node("Identity", "position_ids", "g_positions")
    for name in ("cos", "sin"):
        yield _node("Gather", f"{name}_cache g_positions", f"g_{name}")
        yield _node("Unsqueeze", f"g_{name} c_1", f"g_{name}_k")
        yield _node("Unsqueeze", f"g_{name} c_1_2", f"g_{name}_q")


def _attention(layer: int, gqa: WireMessage, kind: Kind) -> Iterator[bytes]:
    qkv, out = gqa.texts(1)[0], gqa.texts(2)[0]
    at = f"g{layer}_"
    if kind.is_quantised:
        yield _node("DynamicQuantizeLinear", qkv, f"{at}int8 {at}int8_scale {at}int8_zero")
        yield _node("DequantizeLinear", f"{at}int8 {at}int8_scale {at}int8_zero", f"{at}qkv")
        qkv = f"{at}qkv"
    yield _node("Split", f"{qkv} c_heads", f"{at}q_flat {at}k_flat {at}v_flat", axis=2)
    yield _node("Reshape", f"{at}q_flat c_q", f"{at}q_heads")
    yield _node("Transpose", f"{at}q_heads", f"{at}q_plain", perm=[0, 2, 3, 1, 4])
    yield from _rotary(f"{at}q_plain", "q", f"{at}q", axis=4)
    for part in "kv":
        yield _node("Reshape", f"{at}{part}_flat c_kv", f"{at}{part}_heads")
        yield _node("Transpose", f"{at}{part}_heads", f"{at}{part}_plain", perm=[0, 2, 1, 3])
    yield from _rotary(f"{at}k_plain", "k", f"{at}k_new", axis=3)
    for part, name, new in (("k", "key", f"{at}k_new"), ("v", "value", f"{at}v_plain")):
        yield _node("Slice", f"past_key_values.{layer}.{name} c_0 g_past_1 c_2", f"{at}{part}_past")
        yield _node("Concat", f"{at}{part}_past {new}", f"present.{layer}.{name}", axis=2)
        yield _node("Unsqueeze", f"present.{layer}.{name} c_2", f"{at}{part}_all")
    yield _node("Transpose", f"{at}k_all", f"{at}k_turned", perm=[0, 1, 2, 4, 3])
    yield _node("MatMul", f"{at}q {at}k_turned", f"{at}products")
    yield _node("Mul", f"{at}products f_scale", f"{at}scores")
    yield _node("Where", f"g_allowed {at}scores f_never", f"{at}masked")
    yield _node("Softmax", f"{at}masked", f"{at}weights", axis=4)
    yield _node("MatMul", f"{at}weights {at}v_all", f"{at}summed")
    yield _node("Transpose", f"{at}summed", f"{at}turned", perm=[0, 3, 1, 2, 4])
    yield _node("Reshape", f"{at}turned c_out", out)


def _rotary(before: str, part: str, after: str, *, axis: int) -> Iterator[bytes]:
    yield _node("Split", f"{before} c_halves", f"{after}_1 {after}_2", axis=axis)
    for half, other, sign in ((1, 2, "Sub"), (2, 1, "Add")):
        yield _node("Mul", f"{after}_{half} g_cos_{part}", f"{after}_{half}_cos")
        yield _node("Mul", f"{after}_{other} g_sin_{part}", f"{after}_{half}_sin")
        yield _node(sign, f"{after}_{half}_cos {after}_{half}_sin", f"{after}_{half}_turned")
    yield _node("Concat", f"{after}_1_turned {after}_2_turned", after, axis=axis)
