"""What the store knows of one generation with a request id, so that it runs once in all processes and lives of ours."""

import asyncio
import logging
from collections.abc import Callable

from tidemill_services.domain.errors import AlreadyExistsError, StoreUnavailableError
from tidemill_services.domain.generation import Usage
from tidemill_services.store import generation_notes
from tidemill_services.store.database import Database
from tidemill_services.store.requests import RequestKey, forget_response

logger = logging.getLogger(__name__)

END_PATIENCE_SECONDS = 60.0  # that an end waits for a store that is away
_RETRY_SECONDS = 1.0


class GenerationNote:
    """The note of one generation. It is durable before the first text is shown, and written while that is made."""

    def __init__(self, database: Database, key: RequestKey, on_written: Callable[[asyncio.Task[None]], None]) -> None:
        self._on_written = on_written
        self._database = database
        self._key = key
        self._writing: asyncio.Task[None] | None = None

    def begin(self) -> "asyncio.Task[None]":
        """Start to write that it runs; the second time, nothing more. The task raises as `check_unknown` does.

        It raises StoreUnavailableError, too.
        """
        if self._writing is None:
            write = self._database.write(generation_notes.note_begin, self._key)
            self._writing = asyncio.create_task(write, name="generation-note")
            self._writing.add_done_callback(self._on_written)
        return self._writing

    async def take_back(self) -> None:
        """Let the same request begin anew, since this one has shown nothing."""
        if self._writing is None:
            return
        await asyncio.wait({self._writing})
        if isinstance(self._writing.exception(), AlreadyExistsError):
            return  # the note is another one's
        try:
            await self._database.write(forget_response, self._key)
        except StoreUnavailableError as error:
            logger.warning("a generation that showed nothing stays noted: %s", error)

    async def end(self, usage: Usage, is_closing: asyncio.Event) -> None:
        """Write what it used; tried again while the store is away, until `is_closing` or for a minute."""
        until = asyncio.get_running_loop().time() + END_PATIENCE_SECONDS
        while True:
            try:
                await self._database.write(generation_notes.note_end, self._key, usage)
            except StoreUnavailableError as error:
                if is_closing.is_set() or asyncio.get_running_loop().time() > until:
                    logger.warning("the usage of a generation is not noted: %s", error)
                    return
            else:
                return
            try:
                async with asyncio.timeout(_RETRY_SECONDS):
                    await is_closing.wait()
            except TimeoutError:
                continue
