"""Runs the decoder on an NVIDIA GPU with ONNX Runtime: weights, cache, inputs and logits stay in the GPU's memory.

The facts of `cpu.py` on GroupQueryAttention hold here too, since both providers share its checks. Views of the cache
are addresses: a view of the first slots, or of one, is where it begins. Beside that:

- The provider has kernels of GroupQueryAttention for float16 and bfloat16 only. A float32 graph would run on the
  processor, with all of its cache copied in each run; it is refused.
- A decode run is recorded once for each size of a batch, as a CUDA graph, and then played again: that leaves out the
  launching of some hundred kernels. A recording keeps addresses and shapes, so decode runs read and write fixed
  buffers, and its mask has the width of the whole context.
- Our copies do not wait for the stream that a run is in, so each run is waited for.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from tidemill_serving.decoder.devices.accelerator import Accelerator, nvidia_gpu
from tidemill_serving.decoder.devices.buckets import NO_RECORDING, Batch, fill_up, sizes_up_to
from tidemill_serving.decoder.devices.cache_layout import CacheLayout, refusal_of_room
from tidemill_serving.decoder.devices.cpu import probe, signature_of
from tidemill_serving.decoder.devices.device import (
    DeviceError,
    FloatArray,
    IntArray,
    ModelRefusedError,
    RemoteLogits,
    SavedCache,
)
from tidemill_serving.decoder.devices.element_types import onnx_type, to_float32, type_name
from tidemill_serving.decoder.devices.export import past_names, present_name, read_export
from tidemill_serving.decoder.devices.guard import Room
from tidemill_serving.decoder.devices.memory import ByteArray
from tidemill_serving.decoder.devices.ort_session import sentence_of
from tidemill_serving.decoder.devices.remote_logits import LogitsHead, RemoteRows
from tidemill_serving.decoder.devices.run_buffers import RunBuffers
from tidemill_serving.decoder.devices.shapes import ShapeSession

_TRIAL = np.array([1, 2, 3], np.int64)  # tokens
_logger = logging.getLogger(__name__)


class CudaDevice:
    """See `Device`. Caches of float16 and bfloat16; exports with and without position_ids and pruned logits."""

    def __init__(self, open_accelerator: Callable[[], Accelerator] = nvidia_gpu) -> None:
        """`open_accelerator` is called in the engine's thread, to which what it gives belongs."""
        self._open_accelerator = open_accelerator
        self._accelerator: Accelerator | None = None

    def load(self, graph: Path, *, num_slots: int, context_length: int, on_progress: Callable[[float], None]) -> int:
        """Make the session and the cache, see that they fit together, record the runs."""
        accelerator = self._accelerator = self._open_accelerator()
        self._memory = accelerator.memory
        self._open_session(accelerator, graph)
        on_progress(0.7)
        self._vocab_size, head_size = self._sizes_of(accelerator, context_length)
        self._layout = CacheLayout(
            num_layers=self._export.num_layers,
            num_slots=num_slots,
            num_kv_heads=self._export.num_kv_heads,
            num_tokens=context_length,
            head_size=head_size,
            item_bytes=np.dtype(self._export.cache_dtype).itemsize,
        )
        self._room = Room(num_slots, context_length, self._vocab_size)
        self._held = np.zeros(num_slots, np.int64)  # tokens in each slot, as the last run or copy left it
        self._head = LogitsHead(accelerator, self._export.logits_dtype, self._vocab_size)
        self._take_memory(accelerator)
        on_progress(0.8)
        self._try_masks()
        on_progress(0.85)
        self._record(accelerator, graph)
        on_progress(1.0)
        return self._vocab_size

    def decode(self, token_ids: IntArray, num_past: IntArray) -> RemoteLogits:
        """Append one token to each of the first slots."""
        self._room.check_decode(token_ids, num_past)
        self._run_rows(fill_up(token_ids, num_past, self._held, self._recorded_sizes, self._room.num_tokens))
        self._held[: len(token_ids)] = num_past + 1
        return RemoteRows(self._head, self._buffers.logits, len(token_ids))

    def extend(self, slot: int, token_ids: IntArray, num_past: int) -> FloatArray:
        """Append tokens to one slot."""
        self._room.check_extend(slot, token_ids, num_past)
        num_new = len(token_ids)
        num_made = 1 if self._export.has_pruned_logits else num_new
        logits = self._buffers.wide_logits(num_made)
        self._buffers.set_tokens(token_ids)
        binding = self._slot_bindings.get(slot) or self._slot_bindings.setdefault(slot, self._bind_cache(slot, 1))
        self._bind_numbers(binding, "input_ids", (1, num_new), self._buffers.token_ids)
        self._bind_numbers(binding, "attention_mask", (1, num_past + num_new), self._buffers.ones)
        if self._export.has_position_ids:
            start = self._buffers.counting + num_past * np.dtype(np.int64).itemsize
            self._bind_numbers(binding, "position_ids", (1, num_new), start)
        self._bind_logits(binding, (1, num_made), logits)
        self._run(binding, NO_RECORDING)
        self._held[slot] = num_past + num_new
        return self._row_of_logits(logits, num_made - 1)

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the start of a slot."""
        starts = (self._layout.starts(self._cache, slot, num_tokens) for slot in (target, source))
        for there, here in zip(*starts, strict=True):
            self._memory.copy(there, here)
        self._held[target] = num_tokens

    def copy_out(self, slot: int, num_tokens: int) -> SavedCache:
        """Copy the start of a slot to host memory."""
        return [self._memory.read(block) for block in self._layout.starts(self._cache, slot, num_tokens)]

    def copy_in(self, slot: int, saved: SavedCache) -> None:
        """Put it back."""
        num_tokens = saved[0].shape[1] // (self._layout.head_size * self._layout.item_bytes)
        for block, content in zip(self._layout.starts(self._cache, slot, num_tokens), saved, strict=True):
            part: ByteArray = content.view(np.uint8)
            self._memory.write(block, part)
        self._held[slot] = num_tokens

    def close(self) -> None:
        """Drop the sessions, then the memory that they were bound to."""
        if self._accelerator is None:
            return
        for name in ("_row_bindings", "_slot_bindings", "_session", "_head"):
            self.__dict__.pop(name, None)
        if (buffers := self.__dict__.pop("_buffers", None)) is not None:
            buffers.free()
        if (cache := self.__dict__.pop("_cache", None)) is not None:
            self._memory.free(cache)
        self._accelerator.memory.close()
        self._accelerator = None

    def _open_session(self, accelerator: Accelerator, graph: Path) -> None:
        """Raises ModelRefusedError."""
        try:
            self._use(accelerator.open_session(graph, records=accelerator.records), records=accelerator.records)
        except ModelRefusedError as error:
            if not accelerator.records:
                raise
            # A graph of which a part runs elsewhere cannot be recorded, and ONNX Runtime refuses it as a whole.
            self._use(accelerator.open_session(graph, records=False), records=False)
            _logger.warning("decode runs are not recorded, which makes them slower: %s", error)
        self._export = read_export(*signature_of(self._session), takes_bfloat16=True)
        if np.dtype(self._export.cache_dtype).type not in accelerator.cache_types:
            raise ModelRefusedError(
                f"the cache is {type_name(self._export.cache_dtype)}, for which a GPU has no GroupQueryAttention: make "
                "the graph with `-p fp16` or `-p int4` and `-e cuda`, or run it on the processor"
            )

    def _use(self, session: Any, *, records: bool) -> None:
        """Run this session from now on."""
        self._session, self._records = session, records
        self._row_bindings: dict[int, Any] = {}  # by the number of rows
        self._slot_bindings: dict[int, Any] = {}
        self._options: dict[int, ort.RunOptions] = {}
        self._recorded_sizes: tuple[int, ...] = ()

    def _sizes_of(self, accelerator: Accelerator, context_length: int) -> tuple[int, int]:
        """(vocabulary size, head size), from the graph, or from a trial where it leaves one open."""
        export = self._export
        if export.vocab_size is not None and export.head_size is not None:
            return export.vocab_size, export.head_size
        return probe(ShapeSession(self._session, self._run_options(NO_RECORDING)), export, context_length)

    def _take_memory(self, accelerator: Accelerator) -> None:
        """Raises ModelRefusedError where there is too little."""
        layout, sizes = self._layout, {"num_slots": self._layout.num_slots, "context_length": self._layout.num_tokens}
        reserve = accelerator.num_reserved_bytes + RunBuffers.num_bytes(**sizes, vocab_size=self._vocab_size)
        if why := refusal_of_room(layout, self._memory.num_free_bytes(), reserve):
            raise ModelRefusedError(why)
        try:
            self._cache = self._memory.allocate(layout.num_bytes)
            self._buffers = RunBuffers(
                self._memory, **sizes, vocab_size=self._vocab_size, logits_dtype=self._export.logits_dtype
            )
        except DeviceError as error:
            raise ModelRefusedError(f"the cache cannot be made: {error}") from error

    def _try_masks(self) -> None:
        """See that the graph runs with a mask of the whole context, and whether a mask of sums means the same to it."""
        text = _TRIAL[: self._room.num_tokens - 1]
        row = Batch(_TRIAL[:1], np.array([len(text)], np.int64), NO_RECORDING)
        answers = []
        try:
            if len(text):
                self.extend(0, text, 0)
            for mask_is_sum in (True, False):
                self._buffers.mask_is_sum = mask_is_sum
                self._run_rows(row)
                answers.append(self._row_of_logits(self._buffers.logits, 0))
        except DeviceError as error:
            raise ModelRefusedError(
                f"the graph does not append to a cache of {self._room.num_tokens} tokens in place: {error}"
            ) from error
        self._buffers.mask_is_sum = np.array_equal(answers[0], answers[1])
        self._buffers.clear_mask_of_first()

    def _record(self, accelerator: Accelerator, graph: Path) -> None:
        """Record a run of each size; where that fails, none is."""
        sizes = sizes_up_to(self._room.num_slots) if self._records and not self._export.constant_inputs else ()
        try:
            for size in sizes:
                self._run_rows(Batch(np.zeros(size, np.int64), np.zeros(size, np.int64), size))
            self._recorded_sizes = sizes
        except DeviceError as error:
            _logger.warning("decode runs are not recorded, which makes them slower: %s", error)
            self._use(accelerator.open_session(graph, records=False), records=False)
        self._held[:] = 0

    def _run_rows(self, batch: Batch) -> None:
        """One token for each of the first slots; the logits are in their buffer then."""
        size = len(batch)
        self._buffers.set_rows(batch)
        if size not in self._row_bindings:
            binding = self._row_bindings[size] = self._bind_cache(0, size)
            self._bind_numbers(binding, "input_ids", (size, 1), self._buffers.token_ids)
            self._bind_numbers(binding, "attention_mask", (size, self._room.num_tokens), self._buffers.mask)
            if self._export.has_position_ids:
                self._bind_numbers(binding, "position_ids", (size, 1), self._buffers.positions)
            self._bind_logits(binding, (size, 1), self._buffers.logits)
        self._run(self._row_bindings[size], batch.recording)

    def _run(self, binding: Any, recording: int) -> None:
        try:
            self._session.run_with_iobinding(binding, self._run_options(recording))
            binding.synchronize_outputs()
        except Exception as error:
            raise DeviceError(sentence_of(error)) from error

    def _run_options(self, recording: int) -> ort.RunOptions:
        if recording not in self._options:
            self._options[recording] = ort.RunOptions()
            self._options[recording].add_run_config_entry("gpu_graph_id", str(recording))
        return self._options[recording]

    def _bind_cache(self, slot: int, num_rows: int) -> Any:
        """A new binding with the cache of some slots as past and as present."""
        binding = self._session.io_binding()
        names = past_names(self._export.num_layers)
        for name, address in zip(names, self._layout.views(self._cache, slot), strict=True):
            view = self._tensor(self._export.cache_dtype, self._layout.shape(num_rows), address)
            binding.bind_input(name, *view)
            binding.bind_output(present_name(name), *view)
        for name, value in self._export.constant_inputs.items():
            binding.bind_cpu_input(name, value)
        return binding

    def _bind_numbers(self, binding: Any, name: str, shape: tuple[int, int], address: int) -> None:
        binding.bind_input(name, *self._tensor(np.int64, shape, address))

    def _bind_logits(self, binding: Any, shape: tuple[int, int], address: int) -> None:
        binding.bind_output("logits", *self._tensor(self._export.logits_dtype, (*shape, self._vocab_size), address))

    def _tensor(self, dtype: Any, shape: tuple[int, ...], address: int) -> tuple[Any, ...]:
        """What a binding wants to know of memory."""
        return self._memory.device_type, self._memory.device_id, onnx_type(dtype), shape, address

    def _row_of_logits(self, address: int, row: int) -> FloatArray:
        content = self._memory.read(self._buffers.logits_of(address, row))[0]
        return to_float32(content.view(self._export.logits_dtype))
