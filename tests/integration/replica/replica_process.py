"""A replica as its launcher starts it: a real process, on a real port."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tidemill_services.engine_client import EngineOutput, EngineStream, Patience, ReplicaClient, ReplicaStatus

TINY_LLAMA = Path(__file__).parents[2] / "models" / "tiny-llama"
PROGRAM = ("-m", "tidemill_serving")


@dataclass
class ReplicaProcess:
    """The process, where it listens, and what it said."""

    process: "subprocess.Popen[bytes]"
    address: str
    stderr: "IO[bytes]" = field(repr=False)
    token: str = field(repr=False)

    @asynccontextmanager
    async def client(self, patience: Patience | None = None) -> AsyncIterator[ReplicaClient]:
        """An opened client of a replica that is READY."""
        client = ReplicaClient(self.address, self.token, patience)
        await client.open()
        try:
            await until_ready(client)
            yield client
        finally:
            await client.close()

    async def exit_code(self, seconds: float = 60.0) -> int:
        """Wait for the process to end."""
        return await asyncio.to_thread(self.process.wait, seconds)

    def stderr_lines(self) -> list[str]:
        """What it wrote to stderr until now."""
        return self.stderr_bytes().decode().splitlines()

    def stderr_bytes(self, offset: int = 0) -> bytes:
        """The same from this byte on. Without a seek: the process writes where one leads."""
        descriptor = self.stderr.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size - offset, offset)


def command(
    package: Path = TINY_LLAMA,
    *,
    device: str = "fake",
    slots: int = 8,
    tick_ms: int = 5,
    options: Sequence[str] = (),
    program: Sequence[str] = PROGRAM,
) -> list[str]:
    """The command line of a replica, without its token."""
    device_options = ["--device", device, "--slots", str(slots), "--fake-tick-ms", str(tick_ms)]
    return [sys.executable, *program, "--package", str(package), *device_options, *options]


@asynccontextmanager
async def replica_process(
    package: Path = TINY_LLAMA,
    *,
    device: str = "fake",
    slots: int = 8,
    tick_ms: int = 5,
    options: Sequence[str] = (),
    program: Sequence[str] = PROGRAM,
) -> AsyncIterator[ReplicaProcess]:
    """A replica that listens; it is killed at the end, whatever it does."""
    token = secrets.token_hex(32)
    reading, writing = os.pipe()
    os.write(writing, token.encode())
    arguments = command(package, device=device, slots=slots, tick_ms=tick_ms, options=options, program=program)
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(  # noqa: ASYNC220 -- from the main thread: its end would end the child
            [*arguments, "--token-fd", str(reading), "--parent-pid", str(os.getpid())],
            pass_fds=[reading],
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        os.close(reading)
        os.close(writing)
        assert process.stdout is not None
        try:
            line = await asyncio.to_thread(process.stdout.readline)
            yield ReplicaProcess(process, json.loads(line)["address"], stderr, token)
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            await asyncio.to_thread(process.wait)
            process.stdout.close()


async def until_ready(client: ReplicaClient) -> ReplicaStatus:
    """Wait until the replica takes generations, or is lost."""
    async with asyncio.timeout(60):
        async for status in client.statuses():
            if status.takes_generations:
                return status
    raise AssertionError(client.status.detail)


async def read_all(stream: EngineStream) -> tuple[str, list[int], EngineOutput]:
    """The whole text and all tokens of a stream, and its last output."""
    texts: list[str] = []
    token_ids: list[int] = []
    async for output in stream:
        texts.append(output.text)
        token_ids += output.token_ids
    return "".join(texts), token_ids, output
