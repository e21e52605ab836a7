"""Runs decoders whose graph gives back the whole cache, the past with the new tokens behind it: slower, but they run.

Such a graph (older Optimum exports, transformers.js) has no GroupQueryAttention, so every run copies the cache once
into the graph and once within it. The cache itself lies in the same slots as elsewhere; a run is handed a copy of
the slots' beginnings and what it appended is written back.

Rows of different length share a run with zeros behind the shorter ones and a mask that leaves them out. Not every
graph keeps to its mask: some count positions from the width, some take several tokens with a past wrongly, and some
scale one row's weights by its neighbours. So `load` tries out what the graph can do, and what it cannot do is done
row by row or token by token.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill_serving.decoder.devices.cpu import HEAD_SIZES, CpuDevice, signature_of
from tidemill_serving.decoder.devices.device import DeviceError, FloatArray, IntArray, ModelRefusedError
from tidemill_serving.decoder.devices.export import BETTER_EXPORT, Export, past_names, present_name, read_export
from tidemill_serving.decoder.devices.guard import Room
from tidemill_serving.decoder.devices.ort_session import open_session, sentence_of
from tidemill_serving.decoder.kv_cache import KVCache

_TRIAL_LENGTH = 16  # tokens
# How far answers may differ and count as the same, as a share of the largest logit.
_SAME_CHUNKS = 1e-2  # half precision and another order of sums move less, a token that is seen wrongly moves more
_SAME_ROWS = {np.float32: 1e-4, np.float16: 1e-2}  # by the cache's type; neighbours must not be felt
_ALIKE = 0.9  # cosine; below it the graph does not go on from its own cache

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a graph was seen to do rightly."""

    takes_chunks: bool  # several tokens with a past
    takes_batches: bool  # rows of different length


class GrowingCacheDevice(CpuDevice):
    """See `Device`. Takes the options of `CpuDevice`."""

    def load(self, graph: Path, *, num_slots: int, context_length: int, on_progress: Callable[[float], None]) -> int:
        """Make the session and the cache, and try out what the graph can do."""
        self._session = open_session(graph, self._session_settings, self._copy, self._meanwhile)
        on_progress(0.7)
        self._export = read_export(*signature_of(self._session))
        self._abilities = Abilities(takes_chunks=False, takes_batches=False)
        self._vocab_size, head_size = _probe(self._session, self._export)
        self._room = Room(num_slots, context_length, self._vocab_size)
        self._cache = KVCache(
            num_layers=self._export.num_layers,
            num_slots=num_slots,
            num_kv_heads=self._export.num_kv_heads,
            num_tokens=context_length,
            head_size=head_size,
            dtype=self._export.cache_dtype,
        )
        self._check_context_length()
        on_progress(0.9)
        self._abilities = self._try_out()
        _logger.info("the graph grows its cache, which is slow: %s", self._abilities)
        on_progress(1.0)
        return self._vocab_size

    def decode(self, token_ids: IntArray, num_past: IntArray) -> FloatArray:
        """Append one token to each of the first slots."""
        self._room.check_decode(token_ids, num_past)
        if self._abilities.takes_batches or len(token_ids) == 1:
            return self._append(0, token_ids[:, None], num_past)
        rows = [self._append(row, token_ids[row, None, None], num_past[row, None]) for row in range(len(token_ids))]
        return np.concatenate(rows)

    def extend(self, slot: int, token_ids: IntArray, num_past: int) -> FloatArray:
        """Append tokens to one slot."""
        self._room.check_extend(slot, token_ids, num_past)
        is_whole = num_past == 0 or self._abilities.takes_chunks
        for piece in np.split(token_ids, 1 if is_whole else len(token_ids)):
            logits = self._append(slot, piece[None], np.array([num_past], np.int64))
            num_past += len(piece)
        row: FloatArray = logits[0]
        return row

    def _append(self, first_slot: int, token_ids: IntArray, num_past: IntArray) -> FloatArray:
        """One run that appends `token_ids` [B, S] to the slots from `first_slot` on; returns logits [B, V]."""
        num_rows, num_new = token_ids.shape
        width = int(num_past.max())
        columns = np.arange(width + num_new)
        mask = ((columns < num_past[:, None]) | (columns >= width)).astype(np.int64)
        feed = dict(zip(past_names(self._export.num_layers), self._past(first_slot, num_past, width), strict=True))
        feed |= {"input_ids": token_ids, "attention_mask": mask, **self._export.constant_inputs}
        if self._export.has_position_ids:
            feed["position_ids"] = num_past[:, None] + np.arange(num_new)
        if self._export.has_cache_branch:
            feed["use_cache_branch"] = np.array([width > 0])
        logits, *presents = _run(self._session, self._export, feed)
        for array, present in zip(self._arrays(), presents, strict=True):
            for row in range(num_rows):
                start = num_past[row]
                array[first_slot + row, :, start : start + num_new] = present[row, :, width:]
        last: FloatArray = logits[:, -1].astype(np.float32, copy=False)
        return last

    def _past(self, first_slot: int, num_past: IntArray, width: int) -> list[NDArray[np.generic]]:
        """A copy of what counts of each array, zeros behind it: what a slot held before may be no number."""
        copies = []
        for array in self._arrays():
            past = np.zeros((len(num_past), array.shape[1], width, array.shape[3]), array.dtype)
            for row, length in enumerate(num_past):
                past[row, :, :length] = array[first_slot + row, :, :length]
            copies.append(past)
        return copies

    def _arrays(self) -> list[NDArray[np.generic]]:
        """The cache's arrays in the order of `past_names`."""
        return list(chain.from_iterable(zip(self._cache.keys, self._cache.values, strict=True)))

    def _check_context_length(self) -> None:
        """Run one token behind a full context: a table of positions may end before what the manifest claims."""
        longest = np.array([self._room.num_tokens - 1], np.int64)
        try:
            self._append(0, np.zeros((1, 1), np.int64), longest)
        except DeviceError as error:
            raise ModelRefusedError(
                f"the graph does not reach a context of {self._room.num_tokens} tokens: {error}"
            ) from error

    def _try_out(self) -> Abilities:
        """Answer one text in several ways, and see which of them agree. Raises ModelRefusedError."""
        length = min(_TRIAL_LENGTH, self._room.num_tokens - 1)
        text = np.arange(1, length + 3, dtype=np.int64) * 7919 % self._vocab_size
        text, following, part = text[:-2], text[-2:], length // 3
        try:
            whole = self.extend(0, text, 0).copy()
            singles = [self.extend(0, text[i : i + 1], i).copy() for i in range(length)]
            if _cosine(whole, singles[-1]) < _ALIKE:
                raise ModelRefusedError(f"the graph does not go on from its own cache as it should; {BETTER_EXPORT}")
            takes_chunks = part > 0 and self._takes_chunk(text, part, whole)
            return Abilities(takes_chunks, takes_batches=part > 0 and self._takes_batch(text, following, part))
        except DeviceError as error:
            raise ModelRefusedError(f"the graph does not run as a decoder does ({error}); {BETTER_EXPORT}") from error

    def _takes_chunk(self, text: IntArray, part: int, whole: FloatArray) -> bool:
        self._append(0, text[None, :part], np.zeros(1, np.int64))
        try:
            pieced = self._append(0, text[None, part:], np.array([part], np.int64))[0]
        except DeviceError:
            return False
        return _agree(whole, pieced, _SAME_CHUNKS)

    def _takes_batch(self, text: IntArray, following: IntArray, part: int) -> bool:
        """A long row and a short one, each alone and both together."""
        if self._room.num_slots < 2:
            return False
        past = np.array([len(text), part], np.int64)
        for slot, length in enumerate(past):
            self.extend(slot, text[:length], 0)
        alone = [self._append(slot, following[slot, None, None], past[slot, None])[0] for slot in (0, 1)]
        try:
            together = self._append(0, following[:, None], past)
        except DeviceError:
            return False
        share = _SAME_ROWS[np.dtype(self._export.cache_dtype).type]
        return all(_agree(one, other, share) for one, other in zip(alone, together, strict=True))


def _run(session: Any, export: Export, feed: dict[str, Any]) -> Sequence[Any]:
    """Returns logits [B, S or 1, V] and the grown cache. Raises DeviceError."""
    try:
        found: Sequence[Any] = session.run(["logits", *map(present_name, past_names(export.num_layers))], feed)
    except Exception as error:
        raise DeviceError(sentence_of(error)) from error
    return found


def _probe(session: Any, export: Export) -> tuple[int, int]:
    """Run one token behind a cache of four and see it grow to five. Returns (vocabulary size, head size)."""
    failure = ""
    for head_size in (export.head_size,) if export.head_size else HEAD_SIZES:
        past = np.zeros((1, export.num_kv_heads, 4, head_size), export.cache_dtype)
        feed = dict.fromkeys(past_names(export.num_layers), past) | dict(export.constant_inputs)
        feed |= {"input_ids": np.zeros((1, 1), np.int64), "attention_mask": np.ones((1, 5), np.int64)}
        if export.has_position_ids:
            feed["position_ids"] = np.full((1, 1), 4)
        if export.has_cache_branch:
            feed["use_cache_branch"] = np.array([True])
        try:
            logits, *presents = _run(session, export, feed)
        except DeviceError as error:
            failure = failure or str(error)
            continue
        if any(present.shape != (1, export.num_kv_heads, 5, head_size) for present in presents):
            shapes = presents[0].shape
            raise ModelRefusedError(f"the graph makes a cache of {list(shapes)} of one of 4 tokens; {BETTER_EXPORT}")
        return int(logits.shape[-1]), head_size
    raise ModelRefusedError(f"the graph does not run as a decoder does ({failure}); {BETTER_EXPORT}")


def _agree(one: FloatArray, other: FloatArray, share: float) -> bool:
    return bool(np.abs(one - other).max() <= share * np.abs(one).max())


def _cosine(one: FloatArray, other: FloatArray) -> float:
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-9))
