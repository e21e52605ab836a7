"""How two threads choose tokens together: by a driver in C, also under the thread sanitizer, and from Python."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tidemill_serving.decoder.chooser import NativeChooser
from tidemill_serving.decoder.numpy_chooser import Picks
from tidemill_serving.decoder.wish import Wish
from tidemill_serving.engine import Sampling
from tidemill_serving.native.choosing import find_choosing
from tidemill_serving.native.library import LIBRARY

DRIVER = Path(__file__).with_name("share_driver.c")
COMPILER = shutil.which("cc")
WRONG, NO_THREADS, RACES = 1, 2, 66  # how the driver ends, or the sanitizer ends it
VOCAB_SIZE = 20_000
NUM_ROWS = 24  # enough to be worth a second thread
MIXES = [
    {"top_p": 0.9},
    {"top_p": 0.95, "temperature": 2.0},
    {"top_k": 3000},
    {"min_p": 0.02},
    {"temperature": 0.0, "presence_penalty": 0.5},
    {"top_p": 0.8, "repetition_penalty": 1.3, "logit_bias": ((7, 4.0),)},
]

needs_compiler = pytest.mark.skipif(COMPILER is None or not LIBRARY.is_file(), reason="our library is not built here")
needs_library = pytest.mark.skipif(find_choosing() is None, reason="our library is not built here")


def driver(folder: Path, *flags: str) -> Path | None:
    """The driver built with these flags; None where the compiler does not know them."""
    program = folder / "driver"
    sources = [str(DRIVER), str(LIBRARY.with_name("choose_share.c"))]
    command = [str(COMPILER), "-std=c11", *flags, f"-I{LIBRARY.parent}", *sources]
    done = subprocess.run([*command, "-o", str(program), "-lpthread"], capture_output=True, check=False)
    return program if done.returncode == 0 else None


@needs_compiler
def test_each_part_of_the_work_is_done_once_whoever_asks_and_after_a_fork_too(tmp_path):
    program = driver(tmp_path, "-O2")
    assert program is not None
    subprocess.run([program, "fork"], check=True, timeout=300)


@needs_compiler
def test_nobody_goes_on_before_the_other_is_done(tmp_path):
    """The sanitizer itself does not start on every kernel: what it says counts, not that it ran."""
    program = driver(tmp_path, "-O1", "-g", "-fsanitize=thread")
    if program is None:
        pytest.skip("this compiler has no thread sanitizer")
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode not in (WRONG, NO_THREADS, RACES), done.stderr


def wishes() -> list[Wish]:
    """New ones: each begins with its seed."""
    prompt = np.arange(50)
    return [
        Wish(Sampling(**{"temperature": 1.0, "seed": row, **MIXES[row % len(MIXES)]}), prompt=prompt, num_logprobs=2)
        for row in range(NUM_ROWS)
    ]


def steps(num_threads: int) -> list[Picks]:
    logits = np.random.default_rng(5).normal(0.0, 3.0, (NUM_ROWS, VOCAB_SIZE)).astype(np.float32)
    library, rows = find_choosing(), wishes()
    assert library is not None
    chooser = NativeChooser(library, VOCAB_SIZE, num_threads)
    return [chooser.choose(logits, rows) for _ in range(20)]


@needs_library
def test_two_threads_choose_what_one_does_to_the_bit():
    assert steps(2) == steps(1)


@needs_library
def test_several_engines_in_one_process_do_not_disturb_each_other():
    expected, found = steps(1), []
    threads = [threading.Thread(target=lambda: found.append(steps(2))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 3


@needs_library
def test_a_process_that_has_chosen_with_two_threads_ends_by_itself():
    code = "from tests.integration.kernels.test_shared_choosing import steps; steps(2)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
