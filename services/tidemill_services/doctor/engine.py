"""ONNX Runtime and the GPU. The runtime is asked in a process of its own: the control plane never loads it."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path

from tidemill_services.doctor.finding import Finding, ok, warning, wrong
from tidemill_services.doctor.packages import find_distribution

CPU_PACKAGE, GPU_PACKAGE = "onnxruntime", "onnxruntime-gpu"
_GPU_PROVIDER = "CUDAExecutionProvider"
_PROBE_SECONDS = 30.0  # a second is usual; longer on a machine at work
# A package for a GPU names CUDA among its providers also where CUDA's libraries are missing; memory there needs them.
_PROBE = """
import json, onnxruntime as ort
version, providers, cuda_error = ort.__version__, ort.get_available_providers(), ""
if "CUDAExecutionProvider" in providers:
    try:
        ort.preload_dlls(directory="")
        ort.OrtValue.ortvalue_from_shape_and_type([1], "float32", "cuda", 0)
    except Exception as error:
        cuda_error = str(error)
print(json.dumps({"version": version, "providers": providers, "cuda_error": cuda_error}))
"""
_REINSTALL = (
    "run `pip uninstall -y onnxruntime onnxruntime-gpu`, then `pip install 'tidemill[cpu]'`, "
    "or 'tidemill[gpu]' for an NVIDIA GPU"
)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What `import onnxruntime` gives."""

    version: str = ""
    providers: tuple[str, ...] = ()
    error: str = ""  # why it cannot be imported; empty when it can
    cuda_error: str = ""  # why it cannot use CUDA, though it is made for it; empty when it can, or is not


def ask_runtime(python: str = sys.executable) -> Runtime:
    """Import onnxruntime in another process, and return what it says of itself."""
    try:
        done = subprocess.run(
            [python, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Runtime(error=f"it was not loaded within {_PROBE_SECONDS} seconds")
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"the process ended with {done.returncode}"]
        return Runtime(error=last[0][:300])
    said = json.loads(done.stdout.splitlines()[-1])
    return Runtime(said["version"], tuple(said["providers"]), cuda_error=said["cuda_error"])


def check_runtime(runtime: Runtime, *, needed: bool, path: Sequence[str] | None = None) -> Finding:
    """The packages of onnxruntime that are installed, and what they are when imported.

    `needed`: whether replicas run models; the fake device needs no runtime.
    """
    packages = [found for name in (CPU_PACKAGE, GPU_PACKAGE) if (found := find_distribution(name, path)) is not None]
    if len(packages) > 1:
        return wrong(
            "engine",
            f"onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: {_REINSTALL}.",
        )
    if not packages:
        return _without_package(runtime, needed=needed)
    package = packages[0]
    name = package.metadata["Name"]
    if missing := _missing_files(package):
        return wrong(
            "engine",
            f"{name} is half removed: {len(missing)} of its files are gone, such as {missing[0]}: {_REINSTALL}.",
        )
    if runtime.error:
        return wrong("engine", f"{name} {package.version} cannot be loaded ({runtime.error}): {_REINSTALL}.")
    if runtime.version != package.version:
        return wrong(
            "engine", f"{name} {package.version} is installed, and what loads is {runtime.version}: {_REINSTALL}."
        )
    return ok("engine", f"{name} {package.version} with {', '.join(runtime.providers)}.")


def check_gpu(runtime: Runtime, *, driver: str | None, needed: bool, path: Sequence[str] | None = None) -> Finding:
    """The GPU that the machine has, against the package. `driver` as `nvidia_driver` finds it.

    `needed`: whether replicas are to run on it.
    """
    for_gpu = find_distribution(GPU_PACKAGE, path) is not None
    failing = wrong if needed else warning
    if driver is None:
        return _without_gpu(for_gpu=for_gpu, needed=needed)
    if for_gpu and _GPU_PROVIDER not in runtime.providers:
        return failing("GPU", f"There is an NVIDIA GPU ({driver}), and onnxruntime-gpu offers no CUDA: {_REINSTALL}.")
    if not for_gpu:
        return failing(
            "GPU",
            f"There is an NVIDIA GPU ({driver}), and onnxruntime for it is not installed, so no replica can use it: "
            "run `pip uninstall -y onnxruntime`, then `pip install 'tidemill[gpu]'`.",
        )
    if runtime.cuda_error:
        return failing(
            "GPU",
            f"There is an NVIDIA GPU ({driver}), and CUDA cannot be used ({runtime.cuda_error[:200]}): it takes CUDA "
            "13 and cuDNN 9, which `pip install 'tidemill[gpu]'` brings, and a driver that is new enough for them.",
        )
    unused = "" if needed else "; replicas use it with TIDEMILL_REPLICA_DEVICE=cuda"
    return ok("GPU", f"There is an NVIDIA GPU ({driver}), and the package for it{unused}.")


def _without_gpu(*, for_gpu: bool, needed: bool) -> Finding:
    if for_gpu:
        return (wrong if needed else warning)(
            "GPU",
            "onnxruntime-gpu is installed, and there is no NVIDIA GPU here: install its driver, or for the "
            "processor run `pip uninstall -y onnxruntime-gpu`, then `pip install 'tidemill[cpu]'`.",
        )
    if needed:
        return wrong("GPU", "There is none, and TIDEMILL_REPLICA_DEVICE is cuda: take cpu.")
    return ok("GPU", "There is none; models run on the processor.")


def nvidia_driver(root: Path = Path("/")) -> str | None:
    """The driver's version where an NVIDIA GPU can be used, from the files that the driver makes; None without one."""
    if not any((root / "dev").glob("nvidia[0-9]*")) and not (root / "dev/dxg").exists():  # dxg: Windows' Linux
        return None
    try:
        words = (root / "proc/driver/nvidia/version").read_text().split()
    except OSError:
        return "driver of unknown version"
    version = next((word for word in words if word[0].isdigit() and "." in word), "of unknown version")
    return f"driver {version}"


def _without_package(runtime: Runtime, *, needed: bool) -> Finding:
    if not runtime.error:
        return wrong("engine", f"onnxruntime {runtime.version} loads, but no package of it is installed: {_REINSTALL}.")
    if not needed:
        return ok("engine", "onnxruntime is not installed, and the fake device needs none.")
    return wrong(
        "engine",
        "onnxruntime is not installed, so no model can run: run `pip install 'tidemill[cpu]'`, "
        "or 'tidemill[gpu]' for an NVIDIA GPU.",
    )


def _missing_files(package: Distribution) -> list[str]:
    """The files of the package that its record names and that are gone; compiled Python may be."""
    return [
        str(file) for file in package.files or [] if file.suffix != ".pyc" and not Path(str(file.locate())).exists()
    ]
