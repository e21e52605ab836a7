"""Writes ONNX files as bytes, field by field, so that graphs of any kind can be made without the onnx package."""

FLOAT, INT64 = 1, 7
GQA = "com.microsoft::GroupQueryAttention"
Tensors = dict[str, tuple[int, list[int | str | None]]]


def varint(value: int) -> bytes:
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*content, value])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def value_info(name: str, dtype: int, dims: list[int | str | None]) -> bytes:
    shape = b"".join(
        field(1, b"" if dim is None else field(1, dim) if isinstance(dim, int) else field(2, dim)) for dim in dims
    )
    return field(1, name) + field(2, field(1, field(1, dtype) + field(2, shape)))


def node(op_type: str, inputs: tuple[str, ...] = (), *, attributes: bytes = b"") -> bytes:
    domain, _, name = op_type.rpartition("::")
    return b"".join(field(1, each) for each in inputs) + field(4, name) + attributes + field(7, domain)


def tensor(name: str, dims: list[int], *, external: str = "", packed: bool = False) -> bytes:
    shape = field(1, b"".join(map(varint, dims))) if packed else b"".join(field(1, dim) for dim in dims)
    where = field(13, field(1, "location") + field(2, external)) if external else field(9, b"\0" * 64)
    return shape + field(2, FLOAT) + field(8, name) + where


def model(inputs: Tensors, outputs: Tensors, nodes: list[bytes], tensors: list[bytes] = [], rest: bytes = b"") -> bytes:  # noqa: B006
    graph = b"".join(field(1, each) for each in nodes) + b"".join(field(5, each) for each in tensors)
    graph += b"".join(field(11, value_info(name, *kind)) for name, kind in inputs.items())
    graph += b"".join(field(12, value_info(name, *kind)) for name, kind in outputs.items())
    return field(1, 9) + field(7, graph) + rest


def decoder_inputs(num_layers: int = 2) -> Tensors:
    tokens: Tensors = {"input_ids": (INT64, ["b", "s"]), "attention_mask": (INT64, ["b", "t"])}
    return tokens | {name: (FLOAT, ["b", 2, "p", 16]) for name in cache_names("past_key_values", num_layers)}


def decoder_outputs(num_layers: int = 2, vocabulary_size: int = 512) -> Tensors:
    logits: Tensors = {"logits": (FLOAT, ["b", "s", vocabulary_size])}
    return logits | {name: (FLOAT, ["b", 2, "t", 16]) for name in cache_names("present", num_layers)}


def cache_names(prefix: str, num_layers: int) -> list[str]:
    return [f"{prefix}.{layer}.{part}" for layer in range(num_layers) for part in ("key", "value")]


def attention(cos_cache: str = "cos_cache") -> bytes:
    return node(GQA, ("qkv", "", "", "k", "v", "lengths", "total", cos_cache, "sin_cache"))


def decoder() -> bytes:
    """A graph that the decoder engine takes by its form; it computes nothing."""
    return model(decoder_inputs(), decoder_outputs(), [attention(), node("MatMul")], [tensor("cos_cache", [64, 8])])
