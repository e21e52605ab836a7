"""`python -m tidemill_serving.start_cache.prepare`: makes the prepared copy of one graph, and ends.

A replica starts it once it is ready. It takes only processor time that nobody else wants, and a copy is kept only if it
computes what the original computes.
"""

import argparse
import logging
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import get_args

import numpy as np

from tidemill_serving.decoder.devices.cpu import CpuDevice
from tidemill_serving.decoder.devices.device import DeviceError, FloatArray, ModelRefusedError
from tidemill_serving.decoder.devices.ort_session import SessionSettings, runtime_name, save_prepared
from tidemill_serving.lifeline import end_with_parent_thread
from tidemill_serving.native import KernelsChoice
from tidemill_serving.start_cache.prepared import PreparedGraph, PreparedGraphs
from tidemill_telemetry.logs import log_to_stderr

_log = logging.getLogger("tidemill_serving.start_cache.prepare")  # by its own name this file is __main__
_SIZE_BY_GRAPH = 3  # of what a copy may take on disk, and its making in memory, by the package's size
_PROBE = np.arange(1, 9, dtype=np.int64)


def main() -> int:
    """Make the copy unless it is there, or somebody makes one; 0 also when it was left out, for a reason in the log."""
    parser = argparse.ArgumentParser(prog="python -m tidemill_serving.start_cache.prepare")
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--graph-bytes", type=int, required=True)
    parser.add_argument("--digest", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--max-bytes", type=int, required=True)
    parser.add_argument("--log-format", default="text")
    parser.add_argument("--kernels", choices=get_args(KernelsChoice), default="auto")
    given = parser.parse_args()
    log_to_stderr(given.log_format, "info")
    end_with_parent_thread()
    _yield_to_all()
    graphs = PreparedGraphs(given.folder, given.max_bytes)
    try:
        with graphs.as_the_one_maker() as alone:
            if alone:
                graphs.clear_unfinished()
                copy = graphs.of(given.digest, runtime_name(given.kernels))
                _make(copy, given.graph, given.graph_bytes * _SIZE_BY_GRAPH, given.max_bytes, given.kernels)
                graphs.trim()
    except (OSError, ModelRefusedError, DeviceError) as error:
        _log.info("no prepared graph was made: %s", error)
    return 0


def _make(copy: PreparedGraph, graph: Path, needed_bytes: int, max_bytes: int, kernels: KernelsChoice) -> None:
    if copy.is_made():
        return
    for what, available in (("memory", _available_memory()), ("disk", shutil.disk_usage(copy.folder).free)):
        if available < needed_bytes:
            raise OSError(f"it needs {needed_bytes >> 20:,} MiB of {what}, and {available >> 20:,} are free")
    with copy.in_making() as draft:
        save_prepared(graph, draft.graph.parent, SessionSettings(1, spinning=False, kernels=kernels))
        draft.seal()
        if (num_bytes := sum(file.stat().st_size for file in draft.graph.parent.iterdir())) > max_bytes:
            raise OSError(f"it has {num_bytes >> 20:,} MiB, and all may have {max_bytes >> 20:,}")
        if not np.array_equal(_answers(graph, kernels), _answers(graph, kernels, draft)):
            raise OSError("it does not compute what the original does")
    _log.info("a prepared graph was made: %s", copy.key)


def _answers(graph: Path, kernels: KernelsChoice, copy: PreparedGraph | None = None) -> FloatArray:
    device = CpuDevice(num_threads=1, spinning=False, copy=copy, kernels=kernels)
    device.load(graph, num_slots=1, context_length=len(_PROBE) + 1, on_progress=lambda _progress: None)
    logits = [device.extend(0, _PROBE, 0).copy(), device.decode(_PROBE[:1], np.array([len(_PROBE)]))[0].copy()]
    device.close()
    return np.stack(logits)


def _yield_to_all() -> None:
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.nice(19)


def _available_memory() -> int:
    """What this machine and this container can still give, in bytes; the cgroup's part is not known everywhere."""
    available = 1 << 62
    with suppress(OSError, ValueError):
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024
    with suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        available = min(available, limit - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    return available


if __name__ == "__main__":
    sys.exit(main())
