"""`python -m tests.fault.wedging.replica …`: a replica whose engine's thread hangs as long as a test says.

While a file named by the replica's process id lies in the folder `WEDGES`, the fake device's runs do not return: the
process lives and answers, and its engine makes no step.
"""

import os
import sys
import time
from pathlib import Path

from tidemill_serving.__main__ import main
from tidemill_serving.decoder.devices.device import IntArray
from tidemill_serving.decoder.devices.fake import FakeDevice

PROGRAM = "tests.fault.wedging.replica"
FOLDER = "WEDGES"

usual_run = FakeDevice._run


def run_unless_wedged(self: FakeDevice, token_ids: IntArray) -> None:
    """Run as the fake device does, once nothing wedges it."""
    wedge = Path(os.environ[FOLDER]) / str(os.getpid())
    while wedge.exists():
        time.sleep(0.01)
    usual_run(self, token_ids)


if __name__ == "__main__":
    FakeDevice._run = run_unless_wedged  # type: ignore[method-assign]
    sys.exit(main())
