"""The library of our kernels as Python sees it."""

import ctypes
import mmap
import threading
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill_serving.native import KernelsChoice

LIBRARY = Path(__file__).with_name("libtidemill_kernels.so")
_ALIGNMENT = 64  # bytes: a cache line
_FLOAT_BITS = 32


class _Matrix(ctypes.Structure):
    """`MatrixShape` of product.h."""

    _fields_ = [(name, ctypes.c_int64) for name in ("depth", "width", "bits", "block", "has_zero_points")]


class _FloatMatrix(ctypes.Structure):
    """`FloatMatrixShape` of float_product.h."""

    _fields_ = [(name, ctypes.c_int64) for name in ("depth", "width")]


class _PackingJob(ctypes.Structure):
    """`PackingJob` of exports.c."""

    _fields_ = [
        ("shape", _Matrix),
        ("row_step", ctypes.c_int64),
        ("column_step", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("values", "scales", "zero_points", "packed")),
    ]


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A matrix as MatMulNBits holds it: `width` columns of `depth` weights of `bits` bits, a scale for each block."""

    depth: int
    width: int
    bits: int
    block: int
    values: NDArray[np.uint8]  # [width, blocks, block * bits / 8]
    scales: NDArray[np.float32]  # [width, blocks]
    zero_points: NDArray[np.uint8] | None = None  # [width, blocks], two in a byte where a weight has 4 bits

    def is_consistent(self) -> bool:
        """Whether the arrays have the sizes that its numbers say."""
        if self.depth <= 0 or self.width <= 0 or self.bits not in (4, 8) or self.block <= 0:
            return False
        blocks = -(-self.depth // self.block)
        wanted_points = self.width * -(-blocks * self.bits // 8)
        return (
            self.values.size == self.width * blocks * self.block * self.bits // 8
            and self.scales.size == self.width * blocks
            and (self.zero_points is None or self.zero_points.size == wanted_points)
        )


Matrix = QuantizedMatrix | NDArray[np.float32]  # one of floats is [depth, width]


class Packing:
    """Threads that pack matrices. Each is in C until all is done, so it leaves Python to others, and waits for none."""

    def __init__(self, pack: Any, jobs: Sequence[tuple[Matrix, NDArray[np.uint8]]], num_threads: int) -> None:
        """`pack` is the library's function."""
        arrays = [_arrays_of(matrix) for matrix, _ in jobs]
        self._read_and_written = arrays, [room for _, room in jobs]  # which must live as long as the threads
        filled = [_job(matrix, read, room) for (matrix, room), read in zip(jobs, arrays, strict=True)]
        filled.sort(key=lambda job: -job.shape.depth * job.shape.width)  # the last ones are short
        self._jobs = (_PackingJob * len(filled))(*filled)
        self._next = ctypes.c_int64(0)
        self._pack = pack
        threads = range(max(1, num_threads))
        self._threads = [threading.Thread(target=self._run, name="tidemill-pack", daemon=True) for _ in threads]
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Until all is packed."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        self._pack(self._jobs, ctypes.c_int64(len(self._jobs)), ctypes.byref(self._next))


class Kernels:
    """The loaded library."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where it cannot be loaded."""
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self._library.tidemill_packed_bytes.restype = ctypes.c_size_t
        self._library.tidemill_packed_float_bytes.restype = ctypes.c_size_t
        self.version: int = self._library.tidemill_version()  # of what is computed and of how it is packed and written
        self.runs_here = bool(self._library.tidemill_runs_here())  # the processor has what it takes
        self.is_faster_here = bool(self._library.tidemill_is_wanted())
        self.floats_are_faster_here = bool(self._library.tidemill_floats_are_wanted())
        self.multiplies_floats = True

    def packed_bytes(self, matrix: QuantizedMatrix) -> int:
        """Bytes of the packed matrix; 0 where there is no product for such a one."""
        return int(self._library.tidemill_packed_bytes(ctypes.byref(_shape(matrix)))) if matrix.is_consistent() else 0

    def packed_float_bytes(self, values: NDArray[np.float32]) -> int:
        """Bytes of the packed matrix [depth, width]; 0 where there is no product for such a one."""
        return int(self._library.tidemill_packed_float_bytes(ctypes.byref(_FloatMatrix(*values.shape))))

    def pack(self, jobs: Sequence[tuple["Matrix", NDArray[np.uint8]]], num_threads: int) -> "Packing":
        """Write each matrix as its operator reads it, into as many bytes as `packed_bytes` says, from now on."""
        return Packing(self._library.tidemill_pack, jobs, num_threads)

    def as_chosen_for_speed(self) -> "Kernels | None":
        """What of it is faster here than ONNX Runtime's own; None where nothing is."""
        chosen = copy(self)
        chosen.multiplies_floats = self.floats_are_faster_here
        return chosen if self.is_faster_here else None


@cache
def find_kernels() -> Kernels | None:
    """The library where it was built, can be loaded, and this processor can run it."""
    try:
        kernels = Kernels(LIBRARY)
    except OSError:
        return None
    return kernels if kernels.runs_here else None


def choose_kernels(choice: KernelsChoice) -> Kernels | None:
    """The library if it is to be used; None: ONNX Runtime's own kernels. Raises LookupError where `own` cannot be."""
    kernels = None if choice == "stock" else find_kernels()
    if choice == "own" and kernels is None:
        raise LookupError(f"there are no kernels of our own here: {LIBRARY.name} was not built, or needs AVX2 and FMA")
    return kernels if choice == "own" or kernels is None else kernels.as_chosen_for_speed()


def _arrays_of(matrix: Matrix) -> tuple[NDArray[Any] | None, ...]:
    """Its values, scales and zero points, as C reads them."""
    if not isinstance(matrix, QuantizedMatrix):
        return matrix, None, None
    points = None if matrix.zero_points is None else np.ascontiguousarray(matrix.zero_points)
    return np.ascontiguousarray(matrix.values), np.ascontiguousarray(matrix.scales), points


def _job(matrix: Matrix, arrays: tuple[NDArray[Any] | None, ...], room: NDArray[np.uint8]) -> _PackingJob:
    if isinstance(matrix, QuantizedMatrix):
        return _PackingJob(_shape(matrix), 0, 0, *map(_pointer, arrays), _pointer(room))
    shape = _Matrix(*matrix.shape, _FLOAT_BITS)
    return _PackingJob(shape, *matrix.strides, *map(_pointer, arrays), _pointer(room))


def _shape(matrix: QuantizedMatrix) -> _Matrix:
    return _Matrix(matrix.depth, matrix.width, matrix.bits, matrix.block, matrix.zero_points is not None)


def _pointer(array: NDArray[Any] | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def room_for(sizes: Sequence[int]) -> list[NDArray[np.uint8]]:
    """An array of each size, side by side in memory of large pages: one row by a matrix is as fast as it is read."""
    starts = list(accumulate((-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes), initial=0))
    memory = mmap.mmap(-1, max(starts[-1], 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # not every kernel has large pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    room = np.frombuffer(memory, np.uint8)
    return [room[start : start + size] for start, size in zip(starts, sizes, strict=False)]
