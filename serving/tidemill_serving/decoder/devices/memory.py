"""The memory that a device of its own has: blocks of bytes at addresses, copied within it and to and from the host."""

import ctypes
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

ByteArray = NDArray[np.uint8]
_ALIGNMENT = 256  # bytes; what the kernels of a GPU may count on


@dataclass(frozen=True, slots=True)
class Block:
    """`num_rows` rows of `width` bytes; each begins `pitch` bytes after the one before."""

    address: int
    width: int
    num_rows: int = 1
    pitch: int = 0  # of a single row it does not matter


class Memory(Protocol):
    """Raises DeviceError wherever it fails. What a call began has ended when it returns."""

    device_type: str  # as ONNX Runtime calls it
    device_id: int

    def num_free_bytes(self) -> int:
        """How much could be allocated now."""

    def allocate(self, num_bytes: int) -> int:
        """The address of new memory, all zeros."""

    def free(self, address: int) -> None:
        """Give back what `allocate` gave."""

    def copy(self, target: Block, source: Block) -> None:
        """Copy a block over another one of the same width and rows."""

    def read(self, source: Block) -> ByteArray:
        """A copy in host memory, [rows, width]."""

    def write(self, target: Block, content: ByteArray) -> None:
        """Put host memory [rows, width] there."""

    def close(self) -> None:
        """Let go of the device."""


class HostMemory:
    """See `Memory`: the processor's own, so that the code for a GPU runs without one."""

    device_type, device_id = "cpu", 0

    def __init__(self, num_bytes: int = 1 << 30) -> None:
        """`num_bytes`: how much there is to give out."""
        self._num_bytes = num_bytes
        self._given: dict[int, ByteArray] = {}

    def num_free_bytes(self) -> int:
        """What was not given out."""
        return self._num_bytes - sum(len(memory) for memory in self._given.values())

    def allocate(self, num_bytes: int) -> int:
        """Zeros of numpy."""
        memory = np.zeros(num_bytes + _ALIGNMENT, np.uint8)
        address = -(-memory.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        self._given[address] = memory
        return address

    def free(self, address: int) -> None:
        """Forget it."""
        del self._given[address]

    def copy(self, target: Block, source: Block) -> None:
        """Copy row by row."""
        _view(target)[:] = _view(source)

    def read(self, source: Block) -> ByteArray:
        """A copy."""
        return _view(source).copy()

    def write(self, target: Block, content: ByteArray) -> None:
        """Copy there."""
        _view(target)[:] = content

    def close(self) -> None:
        """Nothing to let go of."""


def _view(block: Block) -> ByteArray:
    num_bytes = (block.num_rows - 1) * block.pitch + block.width
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(block.address))
    return np.lib.stride_tricks.as_strided(memory, (block.num_rows, block.width), (block.pitch, 1))
