"""A server under fuzz: what is sent to it, and whether it took harm."""

import asyncio
import re
import time
import urllib.request
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from tests.fuzzing.calls import ANSWER_SECONDS, HARM, call_with
from tests.fuzzing.methods import Method, reflected_methods
from tests.integration.api.conftest import Wire, text_of, wait_until, wire_to
from tests.server_process import ServerProcess

Result = TypeVar("Result")
_WRONG_LINE = re.compile(r"\bfault\b|Traceback| ERROR | CRITICAL |\bE\d{4} .*(?:assert|ASSERT)")
# Series that say what runs now: each is back at its value of before, once all is over.
_GAUGES = ("tidemill_running_generations", "tidemill_waiting_generations", "tidemill_leased_places")


class Target:
    """A real server, and the connection over which it is fuzzed. Its log is read on from call to call."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.metadata = (("authorization", f"Bearer {server.api_key}"),)
        self._log_offset = server.log.stat().st_size
        self._runner = asyncio.Runner()
        self._channel = self._runner.run(self._open())
        with grpc.insecure_channel(server.grpc) as channel:
            self.methods = reflected_methods(channel)

    async def _open(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.server.grpc, options=[("grpc.max_send_message_length", -1)])

    def close(self) -> None:
        self._runner.run(self._channel.close())
        self._runner.close()

    def send(self, method: Method, contents: Sequence[bytes], patience: float) -> list[grpc.StatusCode]:
        """Call a method once for each of `contents`, all at once; each is left after `patience` seconds."""
        calls = [call_with(self._channel, method, [content], self.metadata, patience) for content in contents]
        return self.run(_all(calls))

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run this on the target's own loop."""
        return self._runner.run(work)

    def wrong_lines(self) -> list[str]:
        """What the server's log says of faults since the last time."""
        with self.server.log.open("rb") as log:
            log.seek(self._log_offset)
            text = log.read()
            self._log_offset = log.tell()
        return [line for line in text.decode(errors="replace").splitlines() if _WRONG_LINE.search(line)]

    def check(self) -> None:
        """Raise AssertionError if the server took harm that shows at once."""
        assert self.server.process.poll() is None, f"the server ended:\n{self.server.log.read_text()[-3000:]}"
        wrong = self.wrong_lines()
        assert not wrong, "\n".join(wrong)

    def check_at_rest(self) -> None:
        """It lives, its log names no fault, its gauges are back, and it still serves a generation."""
        self.check()
        wait_until(lambda: set(self.gauges().values()) == {0.0}, "that nothing runs any more", ANSWER_SECONDS)
        with wire_to(self.server) as wire:
            check_generates(wire)
        self.check()

    def gauges(self) -> dict[str, float]:
        """The series that say what runs now."""
        with urllib.request.urlopen(f"http://{self.server.admin}/metrics", timeout=ANSWER_SECONDS) as response:
            lines = response.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith(_GAUGES)}


async def _all(calls: Sequence[object]) -> list[grpc.StatusCode]:
    return list(await asyncio.gather(*calls))  # type: ignore[call-overload]


@contextmanager
def target_of(server: ServerProcess) -> Iterator[Target]:
    target = Target(server)
    try:
        yield target
    finally:
        target.close()


def check_generates(wire: Wire) -> None:
    """A generation works; what was fuzzed before may have put its model to rest, or still be doing so."""
    codes: list[grpc.StatusCode] = []

    def generates() -> bool:
        try:
            wire.start()
            return bool(text_of(list(wire.generate())))
        except grpc.RpcError as error:
            codes.append(error.code())
            time.sleep(0.2)
            return False

    wait_until(generates, "that a generation works again", ANSWER_SECONDS)
    assert not set(codes) & set(HARM)


def num_open_files(pid: int) -> int:
    """File descriptors that a process holds."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
