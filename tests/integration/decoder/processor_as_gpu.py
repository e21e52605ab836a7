"""The device for a GPU with the processor in its place: the same addresses, sizes and copies, and no recordings."""

import numpy as np

from tidemill_serving.decoder.devices.accelerator import processor
from tidemill_serving.decoder.devices.cuda import CudaDevice


def cuda_on_processor() -> CudaDevice:
    return CudaDevice(processor)


class WholeRows(CudaDevice):
    """Gives logits as arrays, as tests compare them."""

    def __init__(self) -> None:
        super().__init__(processor)

    def decode(self, token_ids, num_past):
        logits = super().decode(token_ids, num_past)
        return np.array([logits.row(row) for row in range(len(logits))])
