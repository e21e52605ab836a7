"""Ports that stay the test's own while no server listens there."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_port() -> Iterator[int]:
    """A port of loopback at which a server may listen, leave and come back: nobody else is given it meanwhile.

    It is bound and not listened at, so that who calls while no server is there is refused.
    """
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC's listeners have it
        place.bind(("127.0.0.1", 0))
        yield place.getsockname()[1]
