"""Generates the protobuf stubs into the wheel, so that a build needs nothing but the protos."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProtoBuildHook(BuildHookInterface[Any]):
    """Runs the same command as `make protos` before the files are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the stubs under clients/tidemill; hatchling ships them because they are `artifacts`."""
        subprocess.run([sys.executable, str(Path(self.root) / "protos" / "generate.py")], check=True)
