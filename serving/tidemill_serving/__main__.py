"""`python -m tidemill_serving`: one process is one replica of one model, or a spare that waits to become one."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tidemill_ports.garbage import not_looked_for
from tidemill_serving.lifeline import die_with_parent

SPARE = "--spare"  # FD PARENT_PID


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a replica; the code is that of `run_replica`, and 0 of a spare that was not needed."""
    told: Sequence[str] | None = sys.argv[1:] if arguments is None else arguments
    begun_at = time.monotonic() - _seconds_since_process_start()
    if told and told[0] == SPARE:
        told = _become_spare(*told[1:])
        begun_at = time.monotonic()
    if told is None:
        return 0
    # Not above: a spare does its imports without haste.
    with not_looked_for():
        from tidemill_serving.settings import read_settings  # noqa: PLC0415
        from tidemill_serving.start_cache.cache import StartCache  # noqa: PLC0415

        settings = read_settings(told)
        cache = StartCache.of(settings)
        cache.begin(settings.package)  # the imports that follow are the longest part of a start
        from tidemill_serving.replica_process import run_replica  # noqa: PLC0415

    return run_replica(settings, cache, begun_at)


def _become_spare(socket_fd: str, _option: str, parent_pid: str) -> list[str] | None:
    from tidemill_serving.spare import wait_for_orders  # noqa: PLC0415 -- only a spare needs it

    try:
        die_with_parent(int(parent_pid))
    except ProcessLookupError:
        return None
    return wait_for_orders(int(socket_fd))


def _seconds_since_process_start() -> float:
    """How old this process is, by the kernel's clock; it counts in hundredths."""
    started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK"))


if __name__ == "__main__":
    sys.exit(main())
