"""The processes that a bench measures: started, asked for turns by a line of JSON each, and their processor time."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.common.packages import ROOT

PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
_STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Child:
    """A process of the bench's own that answers each line on its stdin with one on its stdout."""

    process: "subprocess.Popen[str]"
    said: Mapping[str, Any]  # its first line

    @property
    def pid(self) -> int:
        """Its id."""
        return self.process.pid

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request, one answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        return _read_line(self.process)


def _read_line(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    while line := process.stdout.readline():
        if line.startswith("{"):  # else a library talks
            answer: dict[str, Any] = json.loads(line)
            return answer
    raise AssertionError(f"{process.args} ended with {process.wait(_STOP_SECONDS)}")


def environment() -> dict[str, str]:
    """Ours, with the project on the path: the peers' environment does not have it installed.

    Modules may be kept compiled, as an installation has them.
    """
    folders = [str(ROOT / name) for name in ("clients", "services", "serving", "")]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": os.pathsep.join(folders)}


@contextmanager
def child(module: str, *arguments: str, python: Path | str = sys.executable) -> Iterator[Child]:
    """Run `python -m MODULE` until the block ends; its stdin's end tells it to go."""
    command = [str(python), "-m", module, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        yield Child(process, _read_line(process))
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time of processes with all their threads, those that ended too."""
    return sum(time.clock_gettime(_cpu_clock(pid)) for pid in pids)


def _cpu_clock(pid: int) -> int:
    """The id of a process's processor clock, as clock_getcpuclockid(3) makes it."""
    return (~pid << 3) | 2


def children_of(pid: int) -> list[int]:
    """The ids of a process's children, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for number in (task / "children").read_text().split():
            found += [int(number), *children_of(int(number))]
    return found


@contextmanager
def cpu_of(spent: dict[str, float], **pids: Sequence[int]) -> Iterator[None]:
    """Add to `spent` what each group of processes spends within the block, in seconds."""
    before = {name: cpu_seconds(group) for name, group in pids.items()}
    yield
    for name, group in pids.items():
        spent[name] = cpu_seconds(group) - before[name]
