"""The signs of life that holders of sessions give in this process, until the guard tells the store of them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

WATCH_SIGN_SECONDS = 20.0

Holding = tuple[str, str]
"""A session's id, and one of its holders."""


class SessionSigns:
    """Remembers when each holder was last heard; a watch is a sign of life for as long as it is open."""

    def __init__(self) -> None:
        self._heard: dict[Holding, float] = {}  # since the last taking, on the clock of `time.monotonic`
        self._watches: dict[Holding, int] = {}
        self._watches_taken = time.monotonic()

    def hear(self, session_id: str, holder: str) -> None:
        """Take a sign of life, of a session that is there."""
        self._heard[session_id, holder] = time.monotonic()

    @contextmanager
    def watching(self, session_id: str, holder: str) -> Iterator[None]:
        """Take the block for a sign of life."""
        holding = (session_id, holder)
        self.hear(*holding)
        self._watches[holding] = self._watches.get(holding, 0) + 1
        try:
            yield
        finally:
            self.hear(*holding)
            self._watches[holding] -= 1
            if not self._watches[holding]:
                del self._watches[holding]

    def take(self) -> dict[Holding, float]:
        """When holders were heard since the last taking; every 20 seconds, those that watch are heard."""
        heard, self._heard = self._heard, {}
        now = time.monotonic()
        if now - self._watches_taken >= WATCH_SIGN_SECONDS:
            self._watches_taken = now
            heard |= dict.fromkeys(self._watches, now)
        return heard
