"""The memory of an NVIDIA GPU, through its driver's own library: what ONNX Runtime needs of CUDA need not be found."""

import ctypes
from typing import Any

import numpy as np

from tidemill_serving.decoder.devices.device import DeviceError, ModelRefusedError
from tidemill_serving.decoder.devices.memory import Block, ByteArray

_LIBRARY = "libcuda.so.1"
_HOST, _DEVICE = 1, 2  # CUmemorytype


class Copy2D(ctypes.Structure):
    """CUDA_MEMCPY2D of cuda.h."""

    _fields_ = [
        ("srcXInBytes", ctypes.c_size_t),
        ("srcY", ctypes.c_size_t),
        ("srcMemoryType", ctypes.c_int),
        ("srcHost", ctypes.c_void_p),
        ("srcDevice", ctypes.c_uint64),
        ("srcArray", ctypes.c_void_p),
        ("srcPitch", ctypes.c_size_t),
        ("dstXInBytes", ctypes.c_size_t),
        ("dstY", ctypes.c_size_t),
        ("dstMemoryType", ctypes.c_int),
        ("dstHost", ctypes.c_void_p),
        ("dstDevice", ctypes.c_uint64),
        ("dstArray", ctypes.c_void_p),
        ("dstPitch", ctypes.c_size_t),
        ("WidthInBytes", ctypes.c_size_t),
        ("Height", ctypes.c_size_t),
    ]


def open_driver() -> Any:
    """The driver's library. Raises ModelRefusedError where there is none."""
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise ModelRefusedError(f"there is no NVIDIA driver here ({error}), so no GPU can be used") from error


class CudaMemory:
    """See `Memory`. Belongs to the thread that made it.

    It works in the context that ONNX Runtime uses too. The runtime's stream does not wait for our copies, nor they for
    it: so each call here waits for its end, and each run has ended before the next call.
    """

    device_type = "cuda"

    def __init__(self, driver: Any, device_id: int = 0) -> None:
        """Raises ModelRefusedError where the GPU cannot be used."""
        self.device_id = device_id
        self._driver = driver
        device, context = ctypes.c_int(), ctypes.c_void_p()
        try:
            self._call("cuInit", 0)
            self._call("cuDeviceGet", ctypes.byref(device), device_id)
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
            self._call("cuCtxSetCurrent", context)
        except DeviceError as error:
            raise ModelRefusedError(f"GPU {device_id} cannot be used: {error}") from error
        self._device = device

    def num_free_bytes(self) -> int:
        """As the driver counts; others on the GPU may be quicker."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def allocate(self, num_bytes: int) -> int:
        """Memory of its own, beside the runtime's arena."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(num_bytes))
        self._call("cuMemsetD8_v2", address, ctypes.c_ubyte(0), ctypes.c_size_t(num_bytes))
        self._call("cuCtxSynchronize")
        return address.value

    def free(self, address: int) -> None:
        """Give it back."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def copy(self, target: Block, source: Block) -> None:
        """Copy within the GPU."""
        self._copy(
            source,
            srcMemoryType=_DEVICE,
            srcDevice=source.address,
            srcPitch=source.pitch or source.width,
            dstMemoryType=_DEVICE,
            dstDevice=target.address,
            dstPitch=target.pitch or target.width,
        )

    def read(self, source: Block) -> ByteArray:
        """Copy to the host."""
        content = np.empty((source.num_rows, source.width), np.uint8)
        self._copy(
            source,
            srcMemoryType=_DEVICE,
            srcDevice=source.address,
            srcPitch=source.pitch or source.width,
            dstMemoryType=_HOST,
            dstHost=content.ctypes.data,
            dstPitch=source.width,
        )
        return content

    def write(self, target: Block, content: ByteArray) -> None:
        """Copy from the host."""
        content = np.ascontiguousarray(content)
        self._copy(
            target,
            srcMemoryType=_HOST,
            srcHost=content.ctypes.data,
            srcPitch=target.width,
            dstMemoryType=_DEVICE,
            dstDevice=target.address,
            dstPitch=target.pitch or target.width,
        )

    def close(self) -> None:
        """Let go of the context; the runtime may hold it longer."""
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _copy(self, size: Block, **ends: int) -> None:
        copy = Copy2D(WidthInBytes=size.width, Height=size.num_rows, **ends)
        # The other one, cuMemcpy2D, may refuse rows that the driver did not lay out itself.
        self._call("cuMemcpy2DUnaligned_v2", ctypes.byref(copy))
        self._call("cuCtxSynchronize")

    def _call(self, name: str, *arguments: Any) -> None:
        """Raises DeviceError with the driver's own words."""
        code = getattr(self._driver, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            raise DeviceError(f"{name} failed with {code}: {(text.value or b'no reason given').decode()}")
