"""What a trial run must tell: the shapes of what it makes, of types that numpy does not know as well."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from tidemill_serving.decoder.devices.element_types import BFLOAT16_BITS, onnx_type


@dataclass(frozen=True, slots=True)
class Shaped:
    """A value of which only its shape is known."""

    shape: tuple[int, ...]


class ShapeSession:
    """A session as `cpu.probe` knows one, that runs from host memory and gives shapes."""

    def __init__(self, session: Any, options: ort.RunOptions) -> None:
        """`options` are those of each run."""
        self._session, self._options = session, options

    def run(self, names: list[str], feed: Mapping[str, NDArray[np.generic]]) -> list[Shaped]:
        """The shapes of these outputs."""
        values = {name: _value(array) for name, array in feed.items()}
        return [Shaped(tuple(made.shape())) for made in self._session.run_with_ort_values(names, values, self._options)]


def _value(array: NDArray[np.generic]) -> Any:
    if array.dtype == BFLOAT16_BITS:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, onnx_type(array.dtype))
    return ort.OrtValue.ortvalue_from_numpy(array)
