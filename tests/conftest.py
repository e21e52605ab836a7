"""What holds for every test."""

import os
import sys

# Tests start some hundred servers, replicas and commands. Where a machine is told to keep no compiled modules, each of
# them compiles all of ours anew, which takes as long as the rest of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
