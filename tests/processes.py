"""What /proc says of processes. One may end at any moment, also between opening a page of its and reading it."""

import os
import signal
from contextlib import suppress
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    stat = _stat(pid)
    return bool(stat) and stat[0] not in "ZX"


def num_cpu_ticks(pid: int) -> int:
    """What a process has spent in user mode; nothing where it has ended."""
    stat = _stat(pid)
    return int(stat[11]) if stat else 0


def children_of(pid: int) -> list[int]:
    """The processes whose parent this one is now."""
    pids = (int(folder.name) for folder in Path("/proc").glob("[0-9]*"))
    stats = ((child, _stat(child)) for child in pids)
    return [child for child, stat in stats if stat and int(stat[1]) == pid and stat[0] != "Z"]


def command_of(pid: int) -> bytes:
    """A process's program and arguments, a zero byte after each; nothing where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def kill_if_alive(pid: int) -> None:
    """End a process for which nobody else does."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    """The fields behind the name of its program: its state, its parent, ...; none where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
