"""The cache's memory: views, and moves that touch nothing else."""

from pathlib import Path

import numpy as np

from tidemill_serving.decoder.kv_cache import KVCache


def test_a_move_copies_the_start_of_one_slot_and_leaves_the_rest_alone():
    cache = KVCache(num_layers=2, num_slots=3, num_kv_heads=2, num_tokens=5, head_size=4, dtype=np.float32)
    arrays = [*cache.keys, *cache.values]
    for index, array in enumerate(arrays):
        array[...] = np.random.default_rng(index).random(array.shape)
    before = [array.copy() for array in arrays]
    cache.move(2, 0, 3)
    for array, old in zip(arrays, before, strict=True):
        assert (array[0, :, :3] == old[2, :, :3]).all()
        assert (array[0, :, 3:] == old[0, :, 3:]).all()
        assert (array[1:] == old[1:]).all()


def test_a_prefix_of_the_slots_is_a_view_in_one_piece():
    cache = KVCache(num_layers=1, num_slots=3, num_kv_heads=2, num_tokens=5, head_size=4, dtype=np.float16)
    for view in (cache.keys[0][:2], cache.values[0][1:2]):
        assert view.base is not None
        assert view.flags.c_contiguous


def test_a_slot_takes_memory_for_what_was_written_to_it_only():
    cache = KVCache(num_layers=1, num_slots=64, num_kv_heads=4, num_tokens=1024, head_size=64, dtype=np.float32)
    arrays = [*cache.keys, *cache.values]
    before = resident_bytes()
    for array in arrays:
        array[:, :, 0] = 1
    assert resident_bytes() - before < sum(array.nbytes for array in arrays) / 8


def resident_bytes() -> int:
    """The memory that this process really holds."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024
