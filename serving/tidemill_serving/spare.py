"""A spare: a process that has done a replica's imports and waits to be told which replica to be.

It knows no model and no token until then. What it is told comes over a socket that its launcher alone holds, and the
token's pipe with it. When the launcher closes the socket or dies, the spare ends.
"""

import importlib
import json
import os
import socket
import threading
from contextlib import suppress

from tidemill_ports.garbage import leave_out_what_is_here, not_looked_for

READY = b"r"  # what it says once its imports are done
MAX_ORDER_BYTES = 65_536
NICENESS = 10  # a tenth of what others get; the lowest would wait for ever on a busy machine
_IMPORTS = (
    "tidemill_serving.replica_process",
    "tidemill_models.check",
    "tidemill_serving.decoder.engine",
    "tidemill_serving.decoder.devices.cpu",
    "tidemill_serving.decoder.devices.original_graph",
    "numpy.random",
)


def wait_for_orders(socket_fd: int) -> list[str] | None:
    """Import, then wait; return the replica's command line, None when there will never be one."""
    with socket.socket(fileno=socket_fd) as launcher:
        _import_quietly()
        with suppress(BrokenPipeError):
            launcher.sendall(READY)
        order, token_fds, _, _ = socket.recv_fds(launcher, MAX_ORDER_BYTES, 1)
    if not order or len(token_fds) != 1:
        return None
    return [*json.loads(order), "--token-fd", str(token_fds[0])]


def _import_quietly() -> None:
    """Import in a thread that takes only time that nobody wants: who is nice may not end that, but a thread may."""
    thread = threading.Thread(target=_import, name="spare-imports")
    thread.start()
    thread.join()


def _import() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    with not_looked_for():
        for name in _IMPORTS:
            importlib.import_module(name)
    leave_out_what_is_here()  # which the replica then need not look through
