"""What a server holds: file descriptors, threads, tasks, calls, slots and buffers, and whether all of it came back."""

import gc
import math
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.processes import children_of, command_of
from tests.server_process import ServerProcess

_GAUGES = (
    "tidemill_asyncio_tasks",
    "tidemill_open_calls",
    "tidemill_open_http_requests",
    "tidemill_running_generations",
    "tidemill_waiting_generations",
    "tidemill_leased_places",
    "tidemill_replica_slots_used",
    "tidemill_buffered_bytes",
)
# The threads of the store's readers and of asyncio's own pool come when they are needed first, and stay. gRPC's pool
# grows while all its threads are busy, and a thread of it ends only after 20 s in which no work fell to it: with a
# heartbeat a second that may be never.
_ALLOWANCES = {"server: python threads": 10, "server: event_engine threads": 4, "replicas: event_engine threads": 4}


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a server and its replicas held at a quiet moment."""

    server: ServerProcess
    held: dict[str, float]

    @classmethod
    def of(cls, server: ServerProcess) -> "Baseline":
        """Take the picture once what ran before has gone."""
        wait_for_quiet(server)
        return cls(server, held_by(server))

    def wait_until_back(self, seconds: float = 90.0) -> float:
        """Wait until nothing is held beyond the baseline; return how long it took, or fail and say what stays."""
        gc.collect()  # calls of this process that are garbage keep their connections open
        began = time.monotonic()
        while kept := self._kept():
            assert time.monotonic() - began < seconds, f"after {seconds:g} s more is held than at first: {kept}"
            time.sleep(0.1)
        return time.monotonic() - began

    def _kept(self) -> dict[str, str]:
        now = held_by(self.server)
        return {
            name: f"{self.held.get(name, 0):g} → {held:g}"
            for name, held in now.items()
            if held > self.held.get(name, 0) + _ALLOWANCES.get(name, 0)
        }


def gauges(server: ServerProcess) -> dict[str, float]:
    """Every series of `/metrics`, summed over its labels."""
    with urllib.request.urlopen(f"http://{server.admin}/metrics", timeout=60) as response:
        text = response.read().decode()
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def wait_for_quiet(server: ServerProcess, seconds: float = 90.0) -> None:
    """Wait until no call, no generation and no buffer is left."""
    wait_for(server, dict.fromkeys(_GAUGES[1:], 0.0), seconds)


def wait_for(server: ServerProcess, wanted: dict[str, float], seconds: float = 90.0) -> float:
    """Wait until these gauges are there, and at most so high; return how long it took."""
    began = time.monotonic()
    while True:
        now = gauges(server)
        above = {name: now.get(name, math.inf) for name, value in wanted.items() if now.get(name, math.inf) > value}
        if not above:
            return time.monotonic() - began
        assert time.monotonic() - began < seconds, f"after {seconds:g} s there still is {above}"
        time.sleep(0.02)


def held_by(server: ServerProcess) -> dict[str, float]:
    """What the server and its replicas hold now, memory apart."""
    now = gauges(server)
    held = {name: now.get(name, 0.0) for name in _GAUGES}
    for who, pids in (("server", [server.process.pid]), ("replicas", replicas_of(server))):
        held[f"{who}: file descriptors"] = sum(_num_descriptors(pid, server.data_dir) for pid in pids)
        for name, num in Counter(name for pid in pids for name in _threads(pid)).items():
            held[f"{who}: {name} threads"] = num
    held["replicas"] = len(replicas_of(server))
    return held


def _num_descriptors(pid: int, data_dir: Path) -> int:
    """Those of a process, but for the store's files: its pool of readers opens each when it is needed first."""
    num = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            num += not descriptor.readlink().is_relative_to(data_dir)
        except OSError:
            continue  # it has just been closed
    return num


def _threads(pid: int) -> list[str]:
    """The names of a process's threads: `python` for those that have no other."""
    names = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except OSError:
            continue  # it has just ended
    return names


def resident_bytes(pid: int) -> int:
    """The memory of a process that is its own and in RAM."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc says nothing of the memory of {pid}")


def replicas_of(server: ServerProcess) -> list[int]:
    """The server's replicas, by their process ids."""
    return [pid for pid in children_of(server.process.pid) if b"--replica-id" in command_of(pid)]
