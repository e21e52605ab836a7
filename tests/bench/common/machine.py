"""The machine that figures belong to."""

import os
import platform
import time
from pathlib import Path

import numpy as np

_KINDS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8")


def processor() -> str:
    """Its name."""
    return _cpuinfo("model name") or platform.machine()


def instructions() -> str:
    """Which of the instructions that quantised models live by it has, and which it has not."""
    flags = set(_cpuinfo("flags").split())
    there = [name for name in _KINDS if name in flags]
    missing = [name for name in _KINDS if name not in flags]
    return f"{' '.join(there) or 'none'} (not {' '.join(missing)})"


def num_processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def load() -> str:
    """What else it does: the load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


class Others:
    """What share of the processors went to programs that are none of this process's, since it was made."""

    def __init__(self) -> None:
        self._start, self._busy, self._own = time.monotonic(), _busy_seconds(), _own_seconds()

    def share(self) -> float:
        """Asked when all children have ended: only then is their time known."""
        busy, own = _busy_seconds() - self._busy, _own_seconds() - self._own
        return max(0.0, busy - own) / (time.monotonic() - self._start) / (os.cpu_count() or 1)


def _busy_seconds() -> float:
    """Of all processors, since the machine's start, without what they were idle or waited for a disk."""
    user, nice, system, _idle, _wait, *rest = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    return sum(map(int, (user, nice, system, *rest))) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Of this process and of those of its children that have ended."""
    return sum(os.times()[:4])


def read_rate(threads: int) -> float:
    """Bytes a second that so many threads read from memory, the best of five."""
    from concurrent.futures import ThreadPoolExecutor

    parts = [np.ones(2**26, np.float32) for _ in range(threads)]  # 256 MiB each, far beyond the caches

    def seconds() -> float:
        start = time.perf_counter()
        list(pool.map(np.max, parts))  # numpy lets the others run meanwhile
        return time.perf_counter() - start

    with ThreadPoolExecutor(threads) as pool:
        return sum(part.nbytes for part in parts) / min(seconds() for _ in range(6))


def _cpuinfo(name: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.partition(":")[0].strip() == name:
            return line.partition(":")[2].strip()
    return ""
