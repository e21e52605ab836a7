"""Logits that stay on the device: a small graph finds there what most choices need, and only that is copied."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tidemill_serving.decoder.devices.accelerator import Accelerator
from tidemill_serving.decoder.devices.device import DeviceError, FloatArray, Shortlist
from tidemill_serving.decoder.devices.element_types import onnx_type, to_float32, type_name
from tidemill_serving.decoder.devices.memory import Block
from tidemill_serving.decoder.devices.ort_session import sentence_of

BLOCK_LENGTH = 256  # as models/logits_head/build.py has it
_GRAPHS = Path(__file__).parent / "logits_heads"
_OUTPUTS = ("top_logits", "top_tokens", "totals", "block_weights")


class LogitsHead:
    """The small graph behind the model's: `models/logits_head/build.py` writes it, one for each type of logits.

    For each row it finds the highest logits and their tokens; `totals`, the weight of all tokens; and
    `block_weights`, that of each block of tokens at the row's temperature. A weight is the exponential of what a logit
    is below the row's highest one.
    """

    def __init__(self, accelerator: Accelerator, dtype: DTypeLike, vocab_size: int) -> None:
        """Raises ModelRefusedError."""
        self.memory, self.dtype, self.vocab_size = accelerator.memory, np.dtype(dtype), vocab_size
        self._session = accelerator.open_session(_GRAPHS / f"{type_name(dtype)}.onnx", records=False)
        self._padding = np.array([0, 0, 0, -vocab_size % BLOCK_LENGTH], np.int64)

    def shortlist(self, address: int, temperatures: FloatArray, num_top: int) -> Shortlist:
        """Of rows of logits at an address; a temperature for each. Raises DeviceError."""
        binding, n = self._session.io_binding(), len(temperatures)
        given: dict[str, NDArray[np.generic]] = {
            "num_top": np.array([min(num_top, self.vocab_size)], np.int64),
            "inverse_temperatures": (1.0 / temperatures).astype(np.float32)[:, None],
            "padding": self._padding,
        }
        for name, value in given.items():
            binding.bind_cpu_input(name, value)
        binding.bind_input(
            "logits",
            self.memory.device_type,
            self.memory.device_id,
            onnx_type(self.dtype),
            (n, self.vocab_size),
            address,
        )
        for name in _OUTPUTS:
            binding.bind_output(name, "cpu")
        try:
            self._session.run_with_iobinding(binding)
            return Shortlist(*binding.copy_outputs_to_cpu())
        except Exception as error:
            raise DeviceError(sentence_of(error)) from error


@dataclass(frozen=True)
class RemoteRows:
    """See `RemoteLogits`."""

    head: LogitsHead
    address: int
    num_rows: int

    def __len__(self) -> int:
        return self.num_rows

    @property
    def vocab_size(self) -> int:
        """Logits of a row."""
        return self.head.vocab_size

    @property
    def block_length(self) -> int:
        """Tokens of a block, but for the last one's."""
        return BLOCK_LENGTH

    def shortlist(self, temperatures: FloatArray, num_top: int) -> Shortlist:
        """One run of the small graph."""
        return self.head.shortlist(self.address, temperatures, num_top)

    def piece(self, row: int, start: int, stop: int) -> FloatArray:
        """A copy of that much."""
        item_bytes = self.head.dtype.itemsize
        address = self.address + (row * self.vocab_size + start) * item_bytes
        content: Any = self.head.memory.read(Block(address, (stop - start) * item_bytes))
        return to_float32(content[0].view(self.head.dtype))

    def row(self, row: int) -> FloatArray:
        """A copy of all of it."""
        return self.piece(row, 0, self.vocab_size)
