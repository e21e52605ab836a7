"""What holds for every test."""

import os
import sys

from hypothesis import HealthCheck, settings

from tests.scale import IS_FULL

# Tests start some hundred servers, replicas and commands. Where a machine is told to keep no compiled modules, each of
# them compiles all of ours anew, which takes as long as the rest of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A slow machine is no failure, and the short form draws the same each time: what it finds is found before a landing.
settings.register_profile("suite", deadline=None, derandomize=not IS_FULL, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
