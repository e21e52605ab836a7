"""`python -m tests.fault.wedging.server serve …`: the server, whose replicas can be wedged; see `replica`.

`UNRESPONSIVE_SECONDS` is for how long it bears an engine that shows no life.
"""

import os
from functools import partial

from tests.fault.wedging import replica
from tidemill_services import app
from tidemill_services.cli import application
from tidemill_services.engine_client import Patience, ReplicaClient
from tidemill_services.scaler.launcher import LaunchSpec
from tidemill_services.scaler.local import LocalLauncher

PROGRAM = "tests.fault.wedging.server"
UNRESPONSIVE = "UNRESPONSIVE_SECONDS"

usual_command = LocalLauncher._command


def command_of_wedging_replica(self: LocalLauncher, spec: LaunchSpec, token_fd: int) -> list[str]:
    """The launcher's own command line, with another program."""
    command = usual_command(self, spec, token_fd)
    command[command.index("tidemill_serving")] = replica.PROGRAM
    return command


if __name__ == "__main__":
    LocalLauncher._command = command_of_wedging_replica  # type: ignore[method-assign]
    patience = Patience(unresponsive=float(os.environ[UNRESPONSIVE]))
    app.ReplicaClient = partial(ReplicaClient, patience=patience)  # type: ignore[misc,assignment]
    application(prog_name=f"python -m {PROGRAM}")
