"""How many calls each connection runs, so that none takes all."""

from collections.abc import Iterator
from contextlib import contextmanager

from tidemill_services.domain.errors import ConnectionFullError


class ConnectionCalls:
    """Counts the calls that run on each connection, which gRPC knows by its peer."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._num_running: dict[str, int] = {}

    @contextmanager
    def running(self, peer: str, *, is_limited: bool = True) -> Iterator[None]:
        """Let one call run. Raises ConnectionFullError for a limited one when the connection runs as many as it may."""
        num_running = self._num_running.get(peer, 0)
        if is_limited and num_running >= self._most:
            raise ConnectionFullError(
                f"This connection runs {num_running:,} calls, as many as it may: wait for one to end.",
                retry_after_seconds=1,
            )
        self._num_running[peer] = num_running + 1
        try:
            yield
        finally:
            if (left := self._num_running[peer] - 1) > 0:
                self._num_running[peer] = left
            else:
                del self._num_running[peer]
