"""The replica processes of this machine, as /proc shows them."""

import os
from pathlib import Path

from tests.processes import command_of


def replica_pids(parent_pid: int | None = None) -> set[int]:
    """Processes that run a replica for `parent_pid` (this process, when None), also those whose parent has gone."""
    return _pids(["tidemill_serving", "--parent-pid", str(parent_pid or os.getpid())])


def spare_pids(parent_pid: int | None = None) -> set[int]:
    """Those of them that are spares, or were."""
    return _pids(["tidemill_serving", "--spare", "--parent-pid", str(parent_pid or os.getpid())])


def _pids(wanted: list[str]) -> set[int]:
    return {int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _runs(folder, wanted)}


def _runs(folder: Path, wanted: list[str]) -> bool:
    arguments = command_of(int(folder.name)).decode(errors="replace").split("\0")
    return all(part in arguments for part in wanted)
