"""Stands between a client and a server and cuts their connections after a random number of bytes."""

import asyncio
import random
from contextlib import suppress
from types import TracebackType
from typing import Self

CHUNK_BYTES = 4096


class CuttingProxy:
    """Listens on a free port of loopback. Cuts both ways at once, politely (FIN) or not (RST)."""

    def __init__(self, target: str, seed: int, bytes_until_cut: tuple[int, int]) -> None:
        host, _, port = target.rpartition(":")
        self._place = host, int(port)
        self._random = random.Random(seed)
        self._bytes_until_cut = bytes_until_cut
        self._tasks: set[asyncio.Task[None]] = set()
        self.num_cuts = 0
        self.is_open = True  # when not, it refuses whoever connects
        self.target = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut_all(self) -> None:
        """Cut what is connected now."""
        for task in self._tasks:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                if self.is_open:
                    await self._join(reader, writer)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(*self._place)
        num_bytes = self._random.randint(*self._bytes_until_cut)
        is_polite = self._random.random() < 0.5
        sending = asyncio.create_task(_carry(reader, back_writer, None), name="to-server")
        answering = asyncio.create_task(_carry(back_reader, writer, num_bytes), name="to-client")
        try:
            await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done() and answering.exception() is None and answering.result():
                self.num_cuts += 1
                if is_polite:
                    writer.close()
                    await writer.wait_closed()
        finally:
            sending.cancel()
            answering.cancel()
            await asyncio.wait({sending, answering})
            back_writer.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, num_bytes: int | None) -> bool:
    """Carry bytes until the sender ends, or so many were carried; whether it was the latter."""
    left = num_bytes
    while left is None or left > 0:
        chunk = await reader.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
        if not chunk:
            return False
        writer.write(chunk)
        await writer.drain()
        if left is not None:
            left -= len(chunk)
    return True
