"""What the store is told of generations with a request id, so that each runs once in all processes and their lives."""

import asyncio
import logging
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass

from tidemill_services.domain.errors import AlreadyExistsError, StoreUnavailableError
from tidemill_services.domain.generation import Usage
from tidemill_services.store.database import Database
from tidemill_services.store.generation_notes import check_unknown, write_notes
from tidemill_services.store.requests import RequestKey, forget_response
from tidemill_telemetry.logs import about

logger = logging.getLogger(__name__)

END_PATIENCE_SECONDS = 60.0  # that an end waits for a store that is away
_END_DELAY_SECONDS = 0.1  # that it waits for a begin to be written with: nobody waits for it
_GATHER_SECONDS = 0.005  # after a unit of work, until the next: a commit costs as much as ten notes in it
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _End:
    key: RequestKey
    usage: Usage
    until: float  # on the loop's clock; then it is given up


class GenerationNotes:
    """Writes the notes of this process. Those that come while others are written, or soon after, are one unit."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begins: list[tuple[RequestKey, asyncio.Future[None]]] = []
        self._ends: list[_End] = []
        self._is_urgent = asyncio.Event()
        self._is_closing = False
        self._writing: asyncio.Task[None] | None = None

    def begin(self, key: RequestKey) -> "asyncio.Future[None]":
        """Write at once that a generation runs. The future raises as `check_unknown` does, or StoreUnavailableError."""
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begins.append((key, begun))
        self._is_urgent.set()
        self._write()
        return begun

    def end(self, key: RequestKey, usage: Usage) -> None:
        """Write in a moment what it used; tried again for a minute while the store is away."""
        self._ends.append(_End(key, usage, asyncio.get_running_loop().time() + END_PATIENCE_SECONDS))
        self._write()

    async def require_unknown(self, key: RequestKey) -> None:
        """Raise as `check_unknown` does, or StoreUnavailableError."""
        await self._database.read(check_unknown, key)

    async def take_back(self, key: RequestKey, begun: "asyncio.Future[None]") -> None:
        """Let the same request begin anew, since this one has shown nothing.

        Raises AlreadyExistsError when the note is another one's.
        """
        await asyncio.wait({begun})
        if isinstance(refusal := begun.exception(), AlreadyExistsError):
            raise refusal
        try:
            await self._database.write(forget_response, key)
        except StoreUnavailableError as error:
            logger.warning("a generation that showed nothing stays noted: %s", error)

    async def close(self, seconds: float) -> None:
        """Write what waits if the store is there. Call it when nothing runs any more."""
        self._is_closing = True
        self._is_urgent.set()
        if self._writing is not None and not (await asyncio.wait({self._writing}, timeout=seconds))[0]:
            self._writing.cancel()
            await asyncio.wait({self._writing})

    def _write(self) -> None:
        if self._writing is None or self._writing.done():
            # In no call's context: its lines in the log are about many.
            self._writing = asyncio.create_task(self._write_all(), name="generation-notes", context=Context())

    async def _write_all(self) -> None:
        """Write until nothing waits; ends that come alone wait a while for a begin."""
        delay_seconds = _END_DELAY_SECONDS
        while self._begins or self._ends:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_seconds):
                    await self._is_urgent.wait()
            self._is_urgent.clear()
            delay_seconds = _END_DELAY_SECONDS if await self._write_once() else _RETRY_SECONDS
            await asyncio.sleep(_GATHER_SECONDS)

    async def _write_once(self) -> bool:
        """Write all that waits now. False when that failed: then only the ends wait still."""
        begins, self._begins = self._begins, []
        ends, self._ends = self._ends, []
        try:
            refusals = await self._database.write(
                write_notes, [key for key, _ in begins], [(end.key, end.usage) for end in ends]
            )
        except Exception as error:  # noqa: BLE001 -- whatever it is, those who wait are told
            for _, begun in begins:
                _settle(begun, error)
            self._keep(ends, error)
            return False
        for (_, begun), refusal in zip(begins, refusals, strict=True):
            _settle(begun, refusal)
        return True

    def _keep(self, ends: list[_End], error: Exception) -> None:
        """Have ends that were not written tried again, unless it is too late."""
        now = asyncio.get_running_loop().time()
        for end in ends:
            if now < end.until and not self._is_closing:
                self._ends.append(end)
            else:
                request = {"account": end.key.account_id, "request_id": end.key.request_id}
                logger.warning("the usage of a generation is not noted: %s", error, extra=about(request))


def _settle(begun: "asyncio.Future[None]", refusal: Exception | None) -> None:
    if begun.done():  # its generation was cancelled
        return
    if refusal is None:
        begun.set_result(None)
    else:
        begun.set_exception(refusal)
