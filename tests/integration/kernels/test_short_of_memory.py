"""A run that gets no memory fails with an error, keeps nothing, and the next one is right."""

import subprocess
import sys
from pathlib import Path

from tests.kernels import needs_kernels

CHILD = "tests.integration.kernels.short_of_memory"
ROOT = Path(__file__).parents[3]
pytestmark = needs_kernels


def test_runs_without_memory_fail_keep_nothing_and_harm_none_that_follow() -> None:
    """In a process of its own: a limit holds for all that a process does. The address sanitizer does not bear it."""
    command = [sys.executable, "-m", CHILD, "100"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
