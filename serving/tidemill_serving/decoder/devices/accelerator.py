"""What `CudaDevice` runs on, a provider of ONNX Runtime with its memory: an NVIDIA GPU, or the processor instead."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from tidemill_serving.decoder.devices.cuda_memory import CudaMemory, open_driver
from tidemill_serving.decoder.devices.device import ModelRefusedError
from tidemill_serving.decoder.devices.element_types import BFLOAT16_BITS
from tidemill_serving.decoder.devices.memory import HostMemory, Memory
from tidemill_serving.decoder.devices.ort_session import sentence_of

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_QUIET = 4  # log nothing: every failure comes back as an exception
_GPU_RESERVE = 1 << 30  # bytes for what runs compute on the way
_HOST_RESERVE = 1 << 20


@dataclass(frozen=True)
class Accelerator:
    """Where sessions run, and where their tensors are."""

    memory: Memory
    provider: str
    cache_types: frozenset[type]  # that the provider's GroupQueryAttention has a kernel for
    num_reserved_bytes: int
    records: bool  # whether runs can be recorded, as CUDA graphs are

    def open_session(self, graph: Path, *, records: bool) -> Any:
        """A session of the graph that runs here. Raises ModelRefusedError."""
        options = ort.SessionOptions()
        options.log_severity_level = _QUIET
        options.enable_mem_pattern = False
        if not graph.is_file():
            raise ModelRefusedError(f"the graph {graph.name} is missing")
        try:
            session = ort.InferenceSession(graph, options, providers=self._providers(records), enable_fallback=0)
        except Exception as error:
            raise ModelRefusedError(f"the graph {graph.name} cannot be loaded: {sentence_of(error)}") from error
        if self.provider not in session.get_providers():  # it falls back without an exception
            raise ModelRefusedError(
                "ONNX Runtime cannot use the GPU: it needs the libraries of CUDA 13 and cuDNN 9, which `pip install "
                "'tidemill[gpu]'` brings; `tidemill doctor` says what is installed"
            )
        return session

    def _providers(self, records: bool) -> Sequence[Any]:
        if self.provider == _CPU:
            return [_CPU]
        # The cache is not in the arena, so an arena that doubles would take what the cache needs.
        cuda = {
            "device_id": str(self.memory.device_id),
            "arena_extend_strategy": "kSameAsRequested",
            "enable_cuda_graph": str(int(records)),
        }
        return [(_CUDA, cuda), _CPU]


def nvidia_gpu(device_id: int = 0) -> Accelerator:
    """An NVIDIA GPU, counted as CUDA_VISIBLE_DEVICES leaves them. Raises ModelRefusedError where there is none."""
    if _CUDA not in ort.get_available_providers():
        raise ModelRefusedError(
            "this ONNX Runtime has no CUDA: `pip uninstall -y onnxruntime`, then `pip install 'tidemill[gpu]'`"
        )
    memory = CudaMemory(open_driver(), device_id)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints; what is missing shows when a session is made
        ort.preload_dlls(directory="")  # what came with pip
    half = frozenset({np.float16, BFLOAT16_BITS})
    return Accelerator(memory, _CUDA, half, _GPU_RESERVE, records=True)


def processor(num_bytes: int = 1 << 30) -> Accelerator:
    """The processor with `num_bytes` of its memory; runs are filled up as if they were recorded."""
    types = frozenset({np.float32, np.float16})
    return Accelerator(HostMemory(num_bytes), _CPU, types, _HOST_RESERVE, records=True)
