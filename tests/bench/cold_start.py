"""How long a replica takes from nothing to its first token, step by step.

    python -m tests.bench.cold_start [--json FILE] [--turns N] [--package FOLDER ...]

Each turn starts every variant once: with and without a spare process, with and without what the last start left in the
start cache, with the model's files in the page cache and without. Medians are shown. The floor is what nobody can do
without: a Python process with these imports, and the model's bytes read once; the target is 1.5 times that.

The page cache is emptied of the model's files and of their copy only; those of Python and its libraries stay. Nothing
else may run meanwhile.
"""

import argparse
import asyncio
import ctypes
import json
import mmap
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.common.packages import LARGE
from tests.integration.scaler.spare_processes import running_spares
from tidemill_models.package import bundled_packages, load_package
from tidemill_services.engine_client import EngineRequest, ReplicaClient
from tidemill_services.scaler.launcher import LaunchSpec
from tidemill_services.scaler.local import LocalLauncher, LocalLauncherSettings
from tidemill_services.scaler.spares import QUIET_SECONDS
from tidemill_services.scaler.start_steps import StartSteps
from tidemill_serving.start_cache.file_identity import SETTLED_SECONDS
from tidemill_serving.start_cache.prepared import PreparedGraphs
from tidemill_serving.start_cache.settings import MIN_PACKAGE_BYTES

IMPORTS = "import asyncio, uvloop, grpc.aio, google.protobuf, numpy, onnxruntime, tokenizers"
CACHE_MIB = 8_192
PROMPT = tuple(range(3, 19))
STEPS = ("launch", "connect", "process", "listen", "package", "engine", "graph", "warm", "first token", "total")
PREPARE_SECONDS = 240.0


@dataclass(frozen=True)
class Variant:
    """One way to start."""

    package: Path
    spare: bool
    cache: bool
    cold_files: bool

    @property
    def name(self) -> str:
        """For the table."""
        spare = "spare" if self.spare else "new process"
        cache = "start cache" if self.cache else "no cache"
        return f"{self.package.name}, {'empty' if self.cold_files else 'warm'} page cache, {spare}, {cache}"


async def start(variant: Variant, cache: Path) -> dict[str, float]:
    """Seconds of each step of one start."""
    settings = LocalLauncherSettings(start_cache=cache if variant.cache else None, start_cache_mib=CACHE_MIB)
    # As a server has them: a spare in the place of the one that is taken must not be started beside what is measured.
    async with running_spares(1 if variant.spare else 0, quiet_seconds=QUIET_SECONDS) as spares:
        if variant.cold_files:
            for file in (*model_files(variant.package), *model_files(cache)):
                forget(file)
        launcher = LocalLauncher(settings, spares)
        spec = LaunchSpec("bench", variant.package, 8, 5.0, secrets.token_hex(32))
        begun, steps = time.monotonic(), StartSteps()
        replica = await launcher.launch(spec)
        steps.note("launch")
        connection = ReplicaClient(replica.address, spec.token)
        try:
            await connection.open()
            steps.note("connect")
            async for status in connection.statuses():
                if status.takes_generations:
                    break
            told = steps.at_ready(connection.status.start_steps)
            asked = time.monotonic()
            stream = connection.generate(EngineRequest(PROMPT, max_tokens=1))
            async for _ in stream:
                pass
            told["first token"] = time.monotonic() - asked
            told["total"] = time.monotonic() - begun
        finally:
            await connection.close()
            replica.kill()
            await replica.wait()
    return told


def fill(package: Path, cache: Path) -> None:
    """Have everything in the start cache that a start of this package can take from there."""
    opened = load_package(package)
    num_bytes = sum(file.bytes for file in opened.manifest.files.values())
    if num_bytes < MIN_PACKAGE_BYTES:
        return
    command = [sys.executable, "-m", "tidemill_serving.start_cache.prepare", "--graph", str(opened.graph_path)]
    command += ["--graph-bytes", str(num_bytes), "--digest", opened.digest, "--folder", str(cache / "prepared")]
    begun = time.monotonic()
    subprocess.run([*command, "--max-bytes", str(CACHE_MIB << 20)], check=True, timeout=PREPARE_SECONDS)
    copies = PreparedGraphs(cache / "prepared", 0).folder
    size = sum(file.stat().st_size for file in copies.rglob("*") if file.is_file())
    print(f"the copy of {package.name} took {time.monotonic() - begun:.1f} s to make; {size >> 20} MiB", flush=True)


def floor(package: Path, *, cold_files: bool) -> dict[str, float]:
    """Seconds that a process with our imports takes, and that reading the model's bytes takes."""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    imported = time.monotonic()
    if cold_files:
        for file in model_files(package):
            forget(file)
    read_from = time.monotonic()
    room = bytearray(1 << 20)
    for path in model_files(package):
        with path.open("rb", buffering=0) as file:
            while file.readinto(room):
                pass
    return {"imports": imported - begun, "reading": time.monotonic() - read_from}


def model_files(folder: Path) -> Iterator[Path]:
    """All files below."""
    return (path for path in folder.rglob("*") if path.is_file())


def forget(path: Path) -> None:
    """Have the kernel drop the file from its page cache. Raises SystemExit where it does not."""
    with path.open("rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if path.stat().st_size and resident_share(path) > 0.05:
        raise SystemExit(f"{path.name} stays in the page cache: somebody has it mapped")


def resident_share(path: Path) -> float:
    """Which share of a file's pages lies in memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as mapped:
        num_pages = -(-len(mapped) // mmap.PAGESIZE)
        found = (ctypes.c_ubyte * num_pages)()
        here = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        if libc.mincore(ctypes.c_void_p(here), ctypes.c_size_t(len(mapped)), found) != 0:
            raise OSError(ctypes.get_errno(), "mincore")
        return sum(page & 1 for page in found) / num_pages


async def measure(packages: list[Path], num_turns: int) -> list[dict[str, object]]:
    """All variants in turns; rows of the table."""
    seconds: dict[Variant, list[dict[str, float]]] = defaultdict(list)
    floors: dict[tuple[Path, bool], list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=packages[-1].parent) as folder:
        caches = {package: Path(folder) / package.name for package in packages}
        await asyncio.sleep(SETTLED_SECONDS)
        for package in packages:
            await asyncio.to_thread(fill, package, caches[package])
        for turn in range(num_turns + 1):  # the first one only fills the caches
            for package in packages:
                for cold_files in (False, True):
                    for variant in (Variant(package, s, c, cold_files) for s in (False, True) for c in (False, True)):
                        steps = await start(variant, caches[package])
                        if turn:
                            seconds[variant].append(steps)
                    floors[package, cold_files].append(await asyncio.to_thread(floor, package, cold_files=cold_files))
    rows: list[dict[str, object]] = []
    for variant, taken in seconds.items():
        steps = {step: statistics.median(one.get(step, 0.0) for one in taken) for step in STEPS}
        below = floors[variant.package, variant.cold_files][1:]
        least = statistics.median(one["imports"] + one["reading"] for one in below)
        rows.append({"variant": variant.name, **steps, "floor": least, "ratio": steps["total"] / least})
    return rows


def show(rows: list[dict[str, object]]) -> None:
    """The table, in milliseconds."""
    columns = (*STEPS, "floor")
    print("| | " + " | ".join(columns) + " | total by floor |\n|" + "---|" * (len(columns) + 2))
    for row in rows:
        numbers = " | ".join(f"{row[column] * 1000:.0f}" for column in columns)
        print(f"| {row['variant']} | {numbers} | {row['ratio']:.2f} |")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cold_start")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--package", type=Path, action="append")
    given = parser.parse_args()
    for package in given.package or ():
        if not (package / "model.toml").is_file():
            parser.error(f"--package: {package} is no model package: it has no model.toml")
    packages = given.package or [package for package in (*bundled_packages(), LARGE) if package.is_dir()]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the first turn compiles what an installation has compiled
    rows = asyncio.run(measure(packages, given.turns))
    show(rows)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
