"""A wall clock that a test sets. The monotonic clock of the processes that read it runs on, as on a real machine.

This is what libfaketime does, and not done with it: version 0.9.10, which Debian has, breaks Python's `time.sleep` when
it leaves the monotonic clock alone (https://github.com/wolfcw/libfaketime/issues/426), and under it PostgreSQL cancels
statements before their time.
"""

import struct
from pathlib import Path

from tests.fault import preload

HOUR_SECONDS = 3_600


class WallClock:
    """What processes with `environment`, and their children, take for the time."""

    def __init__(self, folder: Path) -> None:
        """The processes must be able to read the folder."""
        self._file = folder / "wall-clock"
        self._file.write_bytes(struct.pack("@q", 0))
        self._file.chmod(0o644)
        self.environment = {
            "LD_PRELOAD": str(preload.build("wall_clock", folder)),
            "TEST_WALL_CLOCK": str(self._file),
        }

    def set_by(self, seconds: int) -> None:
        """Have the clock differ by so much from the machine's, from now on."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("@q", seconds))  # in place: it is mapped
