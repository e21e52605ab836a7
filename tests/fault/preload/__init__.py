"""Small libraries that are preloaded into processes, so that the world looks different to them.

They are made with the machine's C compiler.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def build(name: str, folder: Path) -> Path:
    """Compile `name`.c into a library in a folder that its processes may read.

    Without a compiler the test is skipped, in CI it fails.
    """
    if shutil.which("cc") is None:
        sentence = "NO C COMPILER (cc), so nothing is tested on clocks that are set and on full disks"
        pytest.fail(sentence) if os.environ.get("CI") else pytest.skip(sentence)
    library = folder / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    library.chmod(0o755)
    return library
