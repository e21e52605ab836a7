"""How threads share a program's stages: by a driver in C, also under the thread sanitizer where the compiler has it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tidemill_serving.native.library import LIBRARY

DRIVER = Path(__file__).with_name("stages_driver.c")
COMPILER = shutil.which("cc")
WRONG, NO_THREADS, RACES = 1, 2, 66  # how the driver ends, or the sanitizer ends it

pytestmark = pytest.mark.skipif(COMPILER is None or not LIBRARY.is_file(), reason="our own kernels are not built here")


def driver(folder: Path, *flags: str) -> Path | None:
    """The driver built with these flags; None where the compiler does not know them."""
    program = folder / "driver"
    sources = [str(DRIVER), str(LIBRARY.with_name("stages.c"))]
    command = [str(COMPILER), "-std=c11", *flags, f"-I{LIBRARY.parent}", *sources, "-o", str(program), "-lpthread"]
    return program if subprocess.run(command, capture_output=True, check=False).returncode == 0 else None


def test_threads_that_come_when_they_like_make_what_one_makes_alone(tmp_path: Path) -> None:
    program = driver(tmp_path, "-O2")
    assert program is not None
    subprocess.run([program], check=True, timeout=300)


def test_threads_that_share_stages_wait_for_each_other(tmp_path: Path) -> None:
    """The sanitizer itself does not start on every kernel: what it says counts, not that it ran."""
    program = driver(tmp_path, "-O1", "-g", "-fsanitize=thread")
    if program is None:
        pytest.skip("this compiler has no thread sanitizer")
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode not in (WRONG, NO_THREADS, RACES), done.stderr
