"""Runs the decoder on the processor with ONNX Runtime.

Facts this stands on (GroupQueryAttention, onnxruntime 1.31): with one buffer bound as past and as present it appends
in place; the mask only gives each row's count and the width; a batch may hold rows of any length when each appends
one token; several tokens with a past need a batch of one.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from tidemill_serving.decoder.devices.device import (
    DeviceError,
    FloatArray,
    IntArray,
    ModelRefusedError,
    SavedCache,
)
from tidemill_serving.decoder.devices.export import (
    BETTER_EXPORT,
    Export,
    GraphValue,
    past_names,
    present_name,
    read_export,
)
from tidemill_serving.decoder.devices.guard import Room
from tidemill_serving.decoder.devices.ort_session import (
    NOTHING,
    Meanwhile,
    SessionSettings,
    open_session,
    runtime_name,
    sentence_of,
)
from tidemill_serving.decoder.kv_cache import KVCache
from tidemill_serving.native import KernelsChoice
from tidemill_serving.start_cache.prepared import PreparedGraph

_logger = logging.getLogger(__name__)

_PROBE_LENGTH = 4  # tokens of cache in the probe; it runs one
HEAD_SIZES = (64, 128, 80, 96, 256, 32, 16, 8, *range(24, 513, 8))  # the usual ones first


class CpuDevice:
    """See `Device`. Caches of float32 and float16; exports with and without position_ids and pruned logits."""

    def __init__(
        self,
        *,
        num_threads: int,
        spinning: bool,
        copy: PreparedGraph | None = None,
        kernels: KernelsChoice = "auto",
        meanwhile: Meanwhile = NOTHING,
    ) -> None:
        """`copy` is the graph's prepared copy, made or not; `kernels` says whose products and attention compute."""
        self._session_settings = SessionSettings(num_threads, spinning, kernels)
        self._copy = copy
        self._meanwhile = meanwhile
        self._bindings: dict[tuple[int, int], _Bound] = {}

    def load(self, graph: Path, *, num_slots: int, context_length: int, on_progress: Callable[[float], None]) -> int:
        """Make the session and the cache."""
        self._session = open_session(graph, self._session_settings, self._copy, self._meanwhile)
        _logger.info("it runs on %s", runtime_name(self._session_settings.kernels))
        on_progress(0.8)
        self._export = read_export(*signature_of(self._session))
        self._vocab_size, head_size = probe(self._session, self._export, context_length)
        self._room = Room(num_slots, context_length, self._vocab_size)
        self._cache = KVCache(
            num_layers=self._export.num_layers,
            num_slots=num_slots,
            num_kv_heads=self._export.num_kv_heads,
            num_tokens=context_length,
            head_size=head_size,
            dtype=self._export.cache_dtype,
        )
        self._positions = np.arange(context_length, dtype=np.int64)
        self._ones = np.ones((1, context_length), np.int64)
        self._logits = np.empty(num_slots * self._vocab_size, self._export.logits_dtype)
        self._check_context_length()
        on_progress(1.0)
        return self._vocab_size

    def decode(self, token_ids: IntArray, num_past: IntArray) -> FloatArray:
        """Append one token to each of the first slots."""
        self._room.check_decode(token_ids, num_past)
        n, width = len(token_ids), max(num_past.tolist()) + 1
        mask = self._ones[:, :width] if n == 1 else (self._positions[:width] <= num_past[:, None]).astype(np.int64)
        bound = self._bound_to((0, n))
        if bound.token_ids is not token_ids or bound.num_past is not num_past:
            bound.token_ids, bound.num_past = token_ids, num_past
            self._bind_numbers(bound.binding, token_ids[:, None], num_past[:, None])
        if bound.logits is None or bound.logits.base is not self._logits:
            bound.logits = self._bind_logits(bound.binding, n, 1)[:, -1]
        self._run(bound.binding, mask)
        return bound.logits.astype(np.float32, copy=False)

    def extend(self, slot: int, token_ids: IntArray, num_past: int) -> FloatArray:
        """Append tokens to one slot."""
        self._room.check_extend(slot, token_ids, num_past)
        total = num_past + len(token_ids)
        return self._extend(slot, token_ids, self._ones[:, :total], self._positions[num_past:total])

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the start of a slot."""
        self._cache.move(source, target, num_tokens)

    def copy_out(self, slot: int, num_tokens: int) -> SavedCache:
        """Copy the start of a slot out of the cache."""
        return self._cache.copy_out(slot, num_tokens)

    def copy_in(self, slot: int, saved: SavedCache) -> None:
        """Put it back."""
        self._cache.copy_in(slot, saved)

    def close(self) -> None:
        """Drop the session and the cache; their memory goes with them."""
        self._bindings.clear()
        for name in ("_session", "_cache", "_logits"):
            self.__dict__.pop(name, None)

    def _check_context_length(self) -> None:
        """Run one token as if the context were full: its mask has the full width, and still counts one.

        A graph's table of rotary angles may end before the context that the manifest claims.
        """
        mask = np.zeros((1, self._room.num_tokens), np.int64)
        mask[0, 0] = 1
        try:
            self._extend(0, np.zeros(1, np.int64), mask, self._positions[-1:])
        except DeviceError as error:
            raise ModelRefusedError(
                f"the graph does not reach a context of {self._room.num_tokens} tokens: {error}"
            ) from error

    def _extend(self, slot: int, token_ids: IntArray, mask: IntArray, positions: IntArray) -> FloatArray:
        bound = self._bound_to((slot, slot + 1))
        bound.forget()
        self._bind_numbers(bound.binding, token_ids[None], positions[None])
        logits = self._bind_logits(bound.binding, 1, 1 if self._export.has_pruned_logits else len(token_ids))
        self._run(bound.binding, mask)
        last: FloatArray = logits[0, -1].astype(np.float32, copy=False)
        return last

    def _run(self, binding: Any, mask: IntArray) -> None:
        """One run with all else bound."""
        binding.bind_ortvalue_input("attention_mask", _bound(mask))
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise DeviceError(sentence_of(error)) from error

    def _bound_to(self, slots: tuple[int, int]) -> "_Bound":
        """A binding with the cache of these slots as past and as present; made once for each range."""
        if slots not in self._bindings:
            binding = self._session.io_binding()
            arrays = chain.from_iterable(zip(self._cache.keys, self._cache.values, strict=True))
            for name, array in zip(past_names(self._export.num_layers), arrays, strict=True):
                view = _bound(array[slots[0] : slots[1]])
                binding.bind_ortvalue_input(name, view)
                binding.bind_ortvalue_output(present_name(name), view)
            for name, value in self._export.constant_inputs.items():
                binding.bind_ortvalue_input(name, _bound(value))
            self._bindings[slots] = _Bound(binding)
        return self._bindings[slots]

    def _bind_numbers(self, binding: Any, token_ids: IntArray, positions: IntArray) -> None:
        binding.bind_ortvalue_input("input_ids", _bound(token_ids))
        if self._export.has_position_ids:
            binding.bind_ortvalue_input("position_ids", _bound(positions))

    def _bind_logits(self, binding: Any, num_rows: int, num_tokens: int) -> NDArray[np.generic]:
        """Room for logits [rows, tokens, V], kept for the next run."""
        size = num_rows * num_tokens * self._vocab_size
        if size > self._logits.size:
            self._logits = np.empty(size, self._logits.dtype)
        logits = self._logits[:size].reshape(num_rows, num_tokens, self._vocab_size)
        binding.bind_ortvalue_output("logits", _bound(logits))
        return logits


@dataclass(slots=True)
class _Bound:
    """A binding, and which of the caller's and our arrays it is bound to for rows of one token; they live as long."""

    binding: Any
    token_ids: IntArray | None = None
    num_past: IntArray | None = None
    logits: NDArray[np.generic] | None = None  # [B, V]

    def forget(self) -> None:
        """It is bound to others now."""
        self.token_ids = self.num_past = self.logits = None


def _bound(array: NDArray[np.generic]) -> Any:
    """An OrtValue on the array's own memory, which must live until the run is over.

    Of anything but contiguous memory ONNX Runtime would bind a copy, and what a run writes there would be lost.
    """
    if not array.flags.c_contiguous:
        raise DeviceError("an array to be bound is not contiguous")
    return ort.OrtValue.ortvalue_from_numpy(array)


def signature_of(session: Any) -> tuple[list[GraphValue], list[GraphValue]]:
    """The inputs and the outputs of a session's graph."""

    def read(values: Any) -> list[GraphValue]:
        return [GraphValue(value.name, value.type, tuple(value.shape)) for value in values]

    return read(session.get_inputs()), read(session.get_outputs())


def probe(session: Any, export: Export, context_length: int) -> tuple[int, int]:
    """Run one token on a short cache, to learn vocabulary and head size and that it appends in place.

    Where the graph attends within a window, a cache must be no shorter than that: then one of the full length is
    tried. Returns (vocabulary size, head size).
    """
    try:
        return _probe_with(session, export, _PROBE_LENGTH)
    except ModelRefusedError:
        return _probe_with(session, export, context_length)


def _probe_with(session: Any, export: Export, length: int) -> tuple[int, int]:
    """An export that grows its cache by concatenation answers with one token more than `length`."""
    failure = ""
    for head_size in (export.head_size,) if export.head_size else HEAD_SIZES:
        cache = np.zeros((1, export.num_kv_heads, length, head_size), export.cache_dtype)
        feed = dict.fromkeys(past_names(export.num_layers), cache) | dict(export.constant_inputs)
        feed |= {"input_ids": np.zeros((1, 1), np.int64), "attention_mask": np.ones((1, 1), np.int64)}
        if export.has_position_ids:
            feed["position_ids"] = np.zeros((1, 1), np.int64)
        try:
            logits, present = session.run(["logits", "present.0.key"], feed)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime has no common base class
            failure = failure or sentence_of(error)
            continue
        if present.shape[2] != length:
            raise ModelRefusedError(f"the graph grows its cache by concatenation; {BETTER_EXPORT}")
        return int(logits.shape[-1]), head_size
    raise ModelRefusedError(f"the graph does not run with a cache of a fixed length ({failure}); {BETTER_EXPORT}")
