"""Whether our decoder engine can serve a graph; if not, a sentence that says which export to make."""

from collections.abc import Collection, Iterator

from tidemill_models.errors import GraphError
from tidemill_models.graph import GraphSignature, TensorType
from tidemill_models.package_specs import CacheKind

_EXPORT = "export the model with `python -m onnxruntime_genai.models.builder`, without options that change its inputs"
_MICROSOFT = "com.microsoft::"
_SEARCHES = frozenset({"BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"})
_FLOATS = frozenset({"float32", "float16", "bfloat16"})
_OWN_INPUTS = frozenset({"input_ids", "attention_mask", "position_ids", "num_logits_to_keep"})
_CACHE_BRANCH = "use_cache_branch"
_SCALES_BY_BATCH = frozenset({"DynamicQuantizeLinear", "com.microsoft::DynamicQuantizeMatMul"})


def check_decoder_graph(
    graph: GraphSignature,
    *,
    files: Collection[str],
    context_length: int,
    cache: CacheKind = "in-place",
    path: str = "",
) -> None:
    """Refuse what the decoder engine cannot serve; `files` are those that lie beside the graph in the package.

    Raises GraphError with `path`.
    """
    for sentence in _refusals(graph, files, context_length, cache):
        raise GraphError(sentence, path=path)


def _refusals(graph: GraphSignature, files: Collection[str], context_length: int, cache: CacheKind) -> Iterator[str]:
    yield from _operator_refusals(graph)
    for location in sorted(graph.external_files - set(files)):
        yield f"keeps weights in {location[:255]!r}, which is not a file of the package"
    yield from _input_refusals(graph, cache)
    yield from _attention_refusals(graph, cache)
    yield from _cache_refusals(graph)
    yield from _logits_refusals(graph)
    if graph.num_positions is not None and graph.num_positions < context_length:
        yield f"knows {graph.num_positions} positions, fewer than the context_length of {context_length}"


def _operator_refusals(graph: GraphSignature) -> Iterator[str]:
    for op_type in sorted(graph.op_types):
        if op_type.removeprefix(_MICROSOFT) in _SEARCHES:
            yield f"searches by itself ({op_type}), and the engine must do that: {_EXPORT}"
        domain, _, name = op_type.rpartition("::")
        if domain not in ("", "com.microsoft"):
            yield f"uses the custom operator {name[:64]!r} of {domain[:64]!r}; only those of ONNX and com.microsoft run"


def _attention_refusals(graph: GraphSignature, cache: CacheKind) -> Iterator[str]:
    if cache == "in-place" and not graph.has_gqa:
        yield (
            f"has no GroupQueryAttention, so its KV cache cannot grow in place: {_EXPORT}, "
            'or put `cache = "grows"` into [decoder] and have it served slowly'
        )
    if cache == "grows" and graph.has_gqa:
        yield "appends to its KV cache in place: leave `cache` out of [decoder]"
    if cache == "in-place" and (found := sorted(graph.op_types & _SCALES_BY_BATCH)):
        yield (
            f"scales what it multiplies over the whole batch ({found[0]}), so an answer would depend on its "
            "neighbours: take weights of 4 or 8 bits in blocks (MatMulNBits), float16 or float32"
        )


def _input_refusals(graph: GraphSignature, cache: CacheKind) -> Iterator[str]:
    names = set(graph.inputs)
    if any("encoder" in name for name in names) or "decoder_input_ids" in names:
        yield "is an encoder-decoder model; only decoders are served"
    if _CACHE_BRANCH in names and cache == "in-place":
        yield f"is a merged export with a branch for the first step: {_EXPORT}"
    for name in ("input_ids", "attention_mask", "position_ids"):
        tensor = graph.inputs.get(name)
        if tensor is None:
            if name != "position_ids":
                yield f"has no input {name}: {_EXPORT}"
        elif tensor.dtype != "int64" or len(tensor.dims) != 2:
            yield f"its input {name} is {tensor.dtype} with {len(tensor.dims)} axes; it must be int64 with 2"
    pasts = {name for layer in range(graph.num_layers) for name in _cache_names("past_key_values", layer)}
    for name in sorted(names - pasts - _OWN_INPUTS - {_CACHE_BRANCH}):
        yield f"has an input {name[:64]!r} that the engine does not know: {_EXPORT}"


def _cache_refusals(graph: GraphSignature) -> Iterator[str]:
    if graph.num_layers == 0:
        yield f"has no inputs past_key_values.*.key, so every token would cost the whole text: {_EXPORT}"
    elif graph.num_kv_heads is None:
        yield "past_key_values.0.key must be [batch, heads, length, head size], with the heads as a number"
    first = graph.inputs.get("past_key_values.0.key")
    for layer in range(graph.num_layers):
        pasts = _cache_names("past_key_values", layer)
        presents = _cache_names("present", layer)
        tensors = [(name, graph.inputs.get(name)) for name in pasts]
        tensors += [(name, graph.outputs.get(name)) for name in presents]
        for name, tensor in tensors:
            if tensor is None or first is None:
                yield f"has no {name}, though it has {graph.num_layers} layers: {_EXPORT}"
            elif not _is_cache_like(tensor, first):
                yield f"{name} must be a float tensor of the form and type of past_key_values.0.key"


def _is_cache_like(tensor: TensorType, first: TensorType) -> bool:
    if tensor.dtype not in _FLOATS or tensor.dtype != first.dtype or len(tensor.dims) != 4:
        return False
    return tensor.dims[1] == first.dims[1] and tensor.dims[3] == first.dims[3]


def _logits_refusals(graph: GraphSignature) -> Iterator[str]:
    logits = graph.outputs.get("logits")
    if logits is None:
        yield f"has no output logits: {_EXPORT}"
    elif logits.dtype not in _FLOATS or len(logits.dims) != 3:
        yield f"its logits are {logits.dtype} with {len(logits.dims)} axes; they must be floats with 3"


def _cache_names(prefix: str, layer: int) -> tuple[str, str]:
    return f"{prefix}.{layer}.key", f"{prefix}.{layer}.value"
