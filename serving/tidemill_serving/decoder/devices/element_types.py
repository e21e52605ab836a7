"""How numbers of a graph's types are kept in host memory. numpy knows no bfloat16: its bits are kept as uint16."""

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tidemill_serving.decoder.devices.device import FloatArray

BFLOAT16_BITS = np.uint16
_ONNX_TYPES = {np.dtype(np.float32): 1, np.dtype(np.float16): 10, np.dtype(BFLOAT16_BITS): 16, np.dtype(np.int64): 7}
_NAMES = {np.dtype(np.float32): "float32", np.dtype(np.float16): "float16", np.dtype(BFLOAT16_BITS): "bfloat16"}


def onnx_type(dtype: DTypeLike) -> int:
    """The number of the type in ONNX' own list."""
    return _ONNX_TYPES[np.dtype(dtype)]


def type_name(dtype: DTypeLike) -> str:
    """What people call it."""
    return _NAMES[np.dtype(dtype)]


def to_float32(values: NDArray[np.generic]) -> FloatArray:
    """The same numbers, exactly."""
    if values.dtype == BFLOAT16_BITS:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)
