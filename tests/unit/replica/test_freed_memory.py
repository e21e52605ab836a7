"""Memory that nothing is in any more goes back to the operating system."""

import ctypes
import subprocess
import sys

import pytest

BLOCKS = """
from pathlib import Path
from tidemill_serving.freed_memory import give_back

def own_kibibytes():
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0])

blocks = [b"x" * 100_000 for _ in range(600)]
kept = blocks[-1]  # above all others, so that what is below it is not given back by itself
del blocks
before = own_kibibytes()
give_back()
print(before - own_kibibytes())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library gives nothing back on demand")
def test_what_is_free_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKS], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 20_000
