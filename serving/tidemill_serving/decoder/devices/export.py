"""Reads from a graph's inputs and outputs which kind of decoder export it is, and refuses what cannot be served."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tidemill_serving.decoder.devices.device import ModelRefusedError
from tidemill_serving.decoder.devices.element_types import BFLOAT16_BITS

BETTER_EXPORT = "make one with `python -m onnxruntime_genai.models.builder -i CHECKPOINT -o FOLDER -p fp32 -e cpu`"
_CACHE_TYPES: dict[str, DTypeLike] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_BFLOAT16 = "tensor(bfloat16)"
_TOKEN_INPUTS = {"input_ids", "attention_mask", "position_ids"}
_CACHE_BRANCH, _NUM_LOGITS = "use_cache_branch", "num_logits_to_keep"


@dataclass(frozen=True, slots=True)
class GraphValue:
    """An input or output as the graph names it; a dimension is a number where the graph fixes it."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Export:
    """What the engine must know of a decoder graph."""

    num_layers: int
    num_kv_heads: int
    head_size: int | None  # None: the graph leaves it open
    vocab_size: int | None  # likewise
    cache_dtype: DTypeLike
    logits_dtype: DTypeLike
    has_position_ids: bool
    has_pruned_logits: bool  # logits [B, 1, V] of the last token only
    has_cache_branch: bool  # a merged export, which is told whether there is a past
    constant_inputs: Mapping[str, NDArray[np.int64]]  # by name; the same in every run


def read_export(inputs: Iterable[GraphValue], outputs: Iterable[GraphValue], *, takes_bfloat16: bool = False) -> Export:
    """`takes_bfloat16`: whether the device has kernels for it. Raises ModelRefusedError with a sentence."""
    types = _CACHE_TYPES | ({_BFLOAT16: BFLOAT16_BITS} if takes_bfloat16 else {})
    taken = {value.name: value for value in inputs}
    made = {value.name: value for value in outputs}
    num_layers = sum(name.startswith("past_key_values.") and name.endswith(".key") for name in taken)
    pasts = past_names(num_layers)
    _check_names(taken, made, pasts)
    first = taken[pasts[0]]
    _check_caches([taken[name] for name in pasts], first, types)
    logits = made["logits"]
    if logits.type not in types or len(logits.shape) != 3:
        raise ModelRefusedError(f"the output logits is {logits.type} {list(logits.shape)}; it must be float [B, S, V]")
    return Export(
        num_layers=num_layers,
        num_kv_heads=_fixed(first, 1),
        head_size=first.shape[3] if isinstance(first.shape[3], int) else None,
        vocab_size=logits.shape[2] if isinstance(logits.shape[2], int) else None,
        cache_dtype=types[first.type],
        logits_dtype=types[logits.type],
        has_position_ids="position_ids" in taken,
        has_pruned_logits=logits.shape[1] == 1 or _NUM_LOGITS in taken,
        has_cache_branch=_CACHE_BRANCH in taken,
        constant_inputs={_NUM_LOGITS: np.ones([1] * len(taken[_NUM_LOGITS].shape), np.int64)}
        if _NUM_LOGITS in taken
        else {},
    )


def past_names(num_layers: int) -> list[str]:
    """The cache's inputs: key and value of each layer in turn."""
    return [f"past_key_values.{layer}.{part}" for layer in range(num_layers) for part in ("key", "value")]


def present_name(past_name: str) -> str:
    """The output that belongs to an input of the cache."""
    return past_name.replace("past_key_values", "present")


def _check_names(taken: dict[str, GraphValue], made: dict[str, GraphValue], pasts: list[str]) -> None:
    if not pasts:
        raise ModelRefusedError(f"the graph has no inputs past_key_values.*: it keeps no cache; {BETTER_EXPORT}")
    presents = [present_name(name) for name in pasts]
    wanted = ["input_ids", "attention_mask", *pasts]
    missing = [name for name in wanted if name not in taken] + [n for n in ("logits", *presents) if n not in made]
    if missing:
        raise ModelRefusedError(f"the graph lacks {', '.join(missing[:4])}; {BETTER_EXPORT}")
    unknown = sorted(set(taken) - _TOKEN_INPUTS - {_CACHE_BRANCH, _NUM_LOGITS} - set(pasts))
    if unknown:
        raise ModelRefusedError(f"the graph has inputs that no one gives it: {', '.join(unknown[:4])}; {BETTER_EXPORT}")
    for name in (_TOKEN_INPUTS | {_NUM_LOGITS}) & set(taken):
        if taken[name].type != "tensor(int64)":
            raise ModelRefusedError(f"the input {name} is {taken[name].type}; it must be tensor(int64)")
    for name in {_CACHE_BRANCH, _NUM_LOGITS} & set(taken):
        if any(size != 1 for size in taken[name].shape):
            raise ModelRefusedError(f"the input {name} has the shape {list(taken[name].shape)}; it must be one value")


def _check_caches(caches: list[GraphValue], first: GraphValue, types: Mapping[str, DTypeLike]) -> None:
    for cache in caches:
        if cache.type not in types:
            hint = "; bfloat16 runs on a GPU (`--device cuda`)" if cache.type == _BFLOAT16 else ""
            raise ModelRefusedError(
                f"the input {cache.name} is {cache.type}; the cache must be float32 or float16{hint}"
            )
        if len(cache.shape) != 4 or cache.type != first.type or _fixed(cache, 1) != _fixed(first, 1):
            raise ModelRefusedError(f"the input {cache.name} is not [batch, heads, tokens, head size] like the others")


def _fixed(value: GraphValue, axis: int) -> int:
    size = value.shape[axis]
    if not isinstance(size, int):
        raise ModelRefusedError(f"the input {value.name} does not say how many key/value heads it has; {BETTER_EXPORT}")
    return size
