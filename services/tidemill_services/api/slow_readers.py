"""Readers that stop reading: their streams are cut, so that what they hold comes back to those who read."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Self

from tidemill_services.domain.errors import ReaderTooSlowError

NUM_LOOKS = 8  # within the patience; one timer a stream costs less than one a message


class PatientWriter:
    """Writes the messages of one stream, and gives its reader up when it takes none for `patience_seconds`.

    gRPC takes messages beyond what was read, up to its flow control's window; the time counts from when that is full.
    """

    def __init__(self, write: Callable[[Any], Awaitable[None]], patience_seconds: float) -> None:
        self._write = write
        self._patience_seconds = patience_seconds
        self._since: float | None = None  # when the message that is not taken yet was offered
        self._gave_up = False

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._look_later()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    async def write(self, message: Any) -> None:
        """Return when there is room for another message. Raises ReaderTooSlowError."""
        self._since = self._loop.time()
        try:
            await self._write(message)
        except asyncio.CancelledError:
            if self._gave_up and self._task is not None and not self._task.uncancel():
                raise ReaderTooSlowError from None
            raise
        self._since = None

    def _look_later(self) -> None:
        self._timer = self._loop.call_later(self._patience_seconds / NUM_LOOKS, self._look)

    def _look(self) -> None:
        if self._since is None or self._loop.time() - self._since < self._patience_seconds:
            self._look_later()
        elif self._task is not None:
            self._gave_up = True
            self._task.cancel()
