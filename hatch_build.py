"""What a build makes before its files are collected: the protobuf stubs, and our kernels where it can."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("serving/tidemill_serving/native")
LIBRARY = "libtidemill_kernels.so"
_FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-fexceptions")
_TAG = "py3-none-linux_x86_64"


class BuildHook(BuildHookInterface[Any]):
    """Runs the same command as `make protos`, and the C compiler."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the stubs and the library; hatchling ships them because they are `artifacts`."""
        root = Path(self.root)
        subprocess.run([sys.executable, str(root / "protos" / "generate.py")], check=True)
        if self.target_name == "wheel" and compile_kernels(root / NATIVE):
            build_data["pure_python"] = False
            build_data["tag"] = _TAG


def compile_kernels(folder: Path) -> bool:
    """Compile our kernels into `folder`; False where that cannot be, which is no failure."""
    library = folder / LIBRARY
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None or platform.machine() != "x86_64" or sys.platform != "linux":
        library.unlink(missing_ok=True)
        return False
    draft = library.with_suffix(f".{os.getpid()}")
    sources = sorted(str(source) for source in folder.glob("*.c"))
    command = [compiler, *_FLAGS, *sources, "-o", str(draft), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(f"Our own kernels are left out, they do not compile here:\n{done.stderr}\n")
        draft.unlink(missing_ok=True)
        library.unlink(missing_ok=True)
        return False
    draft.replace(library)  # at once: a replica may have the old one mapped, or load it just now
    return True
