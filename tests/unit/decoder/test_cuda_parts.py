"""What the device for a GPU does without one: addresses, sizes of batches, types of numbers, calls of the driver."""

import ctypes
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill_serving.decoder.devices import remote_logits
from tidemill_serving.decoder.devices.accelerator import processor
from tidemill_serving.decoder.devices.buckets import NO_RECORDING, fill_up, sizes_up_to
from tidemill_serving.decoder.devices.cache_layout import CacheLayout, refusal_of_room
from tidemill_serving.decoder.devices.cuda_memory import Copy2D, CudaMemory, open_driver
from tidemill_serving.decoder.devices.device import DeviceError, ModelRefusedError
from tidemill_serving.decoder.devices.element_types import BFLOAT16_BITS, to_float32
from tidemill_serving.decoder.devices.memory import Block, HostMemory
from tidemill_serving.decoder.devices.shapes import Shaped, ShapeSession

layouts = st.builds(
    CacheLayout,
    num_layers=st.integers(1, 3),
    num_slots=st.integers(1, 4),
    num_kv_heads=st.integers(1, 3),
    num_tokens=st.integers(1, 6),
    head_size=st.sampled_from([8, 16]),
    item_bytes=st.sampled_from([2, 4]),
)


@settings(deadline=None)
@given(layouts, st.data())
def test_the_start_of_a_slot_is_where_an_array_of_that_shape_has_it(layout, data):
    slot = data.draw(st.integers(0, layout.num_slots - 1))
    num_tokens = data.draw(st.integers(1, layout.num_tokens))
    memory = HostMemory()
    base = memory.allocate(layout.num_bytes)
    for number, block in enumerate(layout.starts(base, slot, num_tokens), 1):
        memory.write(block, np.full((block.num_rows, block.width), number, np.uint8))
    shape = (layout.num_arrays, *layout.shape(layout.num_slots), layout.item_bytes)
    expected = np.zeros(shape, np.uint8)
    expected[:, slot, :, :num_tokens] = np.arange(1, layout.num_arrays + 1)[:, None, None, None, None]
    assert np.array_equal(memory.read(Block(base, layout.num_bytes))[0], expected.ravel())


def test_a_cache_without_room_is_refused_with_how_many_slots_would_fit():
    layout = CacheLayout(num_layers=32, num_slots=17, num_kv_heads=8, num_tokens=8192, head_size=128, item_bytes=2)
    assert layout.num_bytes == 17 << 30
    assert refusal_of_room(layout, 18 << 30, 1 << 30) == ""
    assert "takes 17.0 GiB, and 5.5 GiB of the GPU's memory are left for it: 5 such slots" in refusal_of_room(
        layout, (6 << 30) + (1 << 29), 1 << 30
    )
    assert "and 0.0 GiB" in refusal_of_room(layout, 1 << 20, 1 << 30)


@settings(deadline=None)
@given(st.integers(1, 1024))
def test_sizes_of_batches_grow_by_half_at_most_and_end_with_all_slots(num_slots):
    sizes = sizes_up_to(num_slots)
    assert sizes[-1] == num_slots
    assert list(sizes) == sorted(set(sizes))
    assert all(later <= max(earlier * 3 / 2, earlier + 4) for earlier, later in pairwise(sizes))
    assert len(sizes) <= 18


@settings(deadline=None)
@given(st.data())
def test_rows_that_fill_a_batch_up_write_behind_what_their_slots_hold(data):
    num_slots, room = data.draw(st.integers(1, 40)), 8
    held = np.array(data.draw(st.lists(st.integers(0, room), min_size=num_slots, max_size=num_slots)), np.int64)
    n = data.draw(st.integers(1, num_slots))
    token_ids, num_past = np.arange(5, 5 + n), np.minimum(held[:n], room - 1)
    batch = fill_up(token_ids, num_past, held, sizes_up_to(num_slots), room)
    assert np.array_equal(batch.token_ids[:n], token_ids)
    assert np.array_equal(batch.num_past[:n], num_past)
    if batch.recording == NO_RECORDING:
        size = next(size for size in sizes_up_to(num_slots) if size >= n)
        assert len(batch) == n
        assert room in held[n:size]
    else:
        assert batch.recording == len(batch) in sizes_up_to(num_slots)
        assert np.array_equal(batch.num_past[n:], held[n : len(batch)])
        assert batch.num_past.max() < room


def test_without_recordings_a_batch_is_run_as_it_is():
    batch = fill_up(np.array([5, 6, 7]), np.array([1, 2, 3]), np.zeros(8, np.int64), (), 16)
    assert (len(batch), batch.recording) == (3, NO_RECORDING)


def test_halves_become_the_same_numbers_in_float32():
    assert to_float32(np.array([1.5, -2.0], np.float16)).tolist() == [1.5, -2.0]
    assert to_float32(np.array([0x3FC0, 0xC000, 0x7F80], BFLOAT16_BITS)).tolist() == [1.5, -2.0, np.inf]


def test_a_trial_run_tells_the_shapes_of_what_is_made_of_bfloat16():
    accelerator = processor()
    graph = Path(remote_logits.__file__).parent / "logits_heads" / "bfloat16.onnx"
    session = ShapeSession(accelerator.open_session(graph, records=False), onnxruntime.RunOptions())
    feed = {
        "logits": np.zeros((3, 300), BFLOAT16_BITS),
        "num_top": np.array([7], np.int64),
        "inverse_temperatures": np.ones((3, 1), np.float32),
        "padding": np.array([0, 0, 0, 212], np.int64),
    }
    assert session.run(["top_tokens", "block_weights"], feed) == [Shaped((3, 7)), Shaped((3, 2))]


class Driver:
    """Does in host memory what libcuda does in a GPU's; its functions take what the real ones take."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.calls, self._memory = failing, [], HostMemory()

    def __getattr__(self, name):
        assert name.startswith("cu"), name

        def call(*arguments):
            self.calls.append(name)
            return 2 if name == self.failing else getattr(type(self), f"_{name}", lambda *_: 0)(self, *arguments)

        return call

    def cuGetErrorString(self, code, text):  # noqa: N802
        text._obj.value = b"out of memory" if code == 2 else None
        return 0

    def _cuMemGetInfo_v2(self, free, total):  # noqa: N802
        free._obj.value, total._obj.value = 3 << 30, 8 << 30
        return 0

    def _cuMemAlloc_v2(self, address, num_bytes):  # noqa: N802
        address._obj.value = self._memory.allocate(num_bytes.value)
        return 0

    def _cuMemsetD8_v2(self, address, byte, num_bytes):  # noqa: N802
        ctypes.memset(address.value, byte.value, num_bytes.value)
        return 0

    def _cuMemcpy2DUnaligned_v2(self, copy):  # noqa: N802
        end = copy._obj
        source = end.srcHost if end.srcMemoryType == 1 else end.srcDevice
        target = end.dstHost if end.dstMemoryType == 1 else end.dstDevice
        for row in range(end.Height):
            ctypes.memmove(target + row * end.dstPitch, source + row * end.srcPitch, end.WidthInBytes)
        return 0


def test_blocks_are_copied_by_the_driver_as_they_are_in_host_memory():
    ours, theirs = HostMemory(), CudaMemory(Driver())
    content = np.arange(24, dtype=np.uint8).reshape(3, 8)
    results = []
    for memory in (ours, theirs):
        base = memory.allocate(128)
        assert not memory.read(Block(base, 128)).any()
        memory.write(Block(base, 8, 3, 16), content)
        memory.copy(Block(base + 64, 8, 2, 24), Block(base + 16, 8, 2, 16))
        memory.write(Block(base + 120, 4), np.full((1, 4), 9, np.uint8))
        assert np.array_equal(memory.read(Block(base, 8, 3, 16)), content)
        results.append(memory.read(Block(base, 128)))
        memory.free(base)
        memory.close()
    assert np.array_equal(*results)


def test_every_copy_is_waited_for_since_the_runtimes_stream_does_not():
    driver = Driver()
    memory = CudaMemory(driver)
    driver.calls.clear()
    memory.write(Block(memory.allocate(8), 8), np.zeros((1, 8), np.uint8))
    assert [name for name in driver.calls if name in {"cuMemcpy2DUnaligned_v2", "cuMemsetD8_v2"}] == [
        "cuMemsetD8_v2",
        "cuMemcpy2DUnaligned_v2",
    ]
    waits = [place for place, name in enumerate(driver.calls) if name == "cuCtxSynchronize"]
    assert waits[-1] == len(driver.calls) - 1
    assert waits[0] == driver.calls.index("cuMemsetD8_v2") + 1


def test_the_drivers_own_words_are_told():
    memory = CudaMemory(Driver(failing="cuMemAlloc_v2"))
    assert memory.num_free_bytes() == 3 << 30
    with pytest.raises(DeviceError, match="cuMemAlloc_v2 failed with 2: out of memory"):
        memory.allocate(1 << 40)
    with pytest.raises(ModelRefusedError, match="GPU 3 cannot be used: cuDeviceGet failed with 2"):
        CudaMemory(Driver(failing="cuDeviceGet"), 3)


def test_the_description_of_a_copy_has_the_size_that_the_driver_expects():
    assert ctypes.sizeof(Copy2D) == 128


def test_without_a_driver_a_model_is_refused_in_a_sentence():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        with pytest.raises(ModelRefusedError, match="there is no NVIDIA driver here"):
            open_driver()
