"""One process of template_worker.py, as the process that started it sees it."""

import os
import select
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tidemill_models.errors import (
    TemplateError,
    TemplateMemoryLimitError,
    TemplateRendererError,
    TemplateRenderError,
    TemplateTimeLimitError,
)

_MEMORY_EXIT_CODE = 3
_START_SECONDS = 30.0
_OVERTIME_SECONDS = 30.0  # the worker's timer counts the time in which it runs; this is for one that hardly ever does
_FRAME_HEADER = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class TemplateLimits:
    """What one rendering may take. Set by the operator, never by who sends a template or a chat."""

    seconds: float = 2.0  # of the processor: a machine that stands still makes no template slow
    memory_bytes: int = 128 << 20  # above what the idle process has
    output_bytes: int = 256 << 10  # without the messages' contents, which the template does not see
    source_bytes: int = 64 << 10


class TemplateProcess:
    """A running worker. Belongs to one thread; `kill` may be called from any."""

    def __init__(self, limits: TemplateLimits) -> None:
        """Start it and wait until it is ready. Raises TemplateRendererError."""
        worker = Path(__file__).with_name("template_worker.py")
        numbers = (limits.seconds, limits.memory_bytes, limits.output_bytes, _MEMORY_EXIT_CODE, os.getpid())
        self._limits = limits
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(worker), *map(str, numbers)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env={"LC_ALL": "C.UTF-8"},  # no secret of ours is where a template could ever find it
            )
        except OSError as error:
            raise TemplateRendererError(f"the template renderer cannot be started: {error}") from error
        try:
            self._read_frame(time.monotonic() + _START_SECONDS)
        except (EOFError, TimeoutError) as error:
            code = self.close()
            raise TemplateRendererError(f"the template renderer did not start (exit code {code})") from error

    @property
    def is_alive(self) -> bool:
        """Whether it can take a request."""
        return self._process.poll() is None

    def ask(self, request: bytes) -> bytes:
        """Send a request and wait for its answer; on any error the process is gone. Raises TemplateError."""
        try:
            self._write(_FRAME_HEADER.pack(len(request)) + request)
            return self._read_frame(time.monotonic() + self._limits.seconds + _OVERTIME_SECONDS)
        except TimeoutError:
            self.close()
            raise self._time_error() from None
        except (EOFError, BrokenPipeError):
            raise self._death(self.close(grace_seconds=1.0)) from None

    def kill(self) -> None:
        """End it now; a thread that waits for its answer is told so."""
        self._process.kill()

    def close(self, *, grace_seconds: float = 0.0) -> int:
        """End it, with time to end by itself, and give back what it held. Returns its exit code."""
        try:
            code = self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        return code

    def _death(self, code: int) -> TemplateError:
        if code == -signal.SIGPROF:
            return self._time_error()
        if code in (_MEMORY_EXIT_CODE, -signal.SIGKILL):
            limit = self._limits.memory_bytes
            return TemplateMemoryLimitError(f"the chat template needed more than {limit} bytes of memory")
        return TemplateRenderError(f"the chat template brought its process down (exit code {code})")

    def _time_error(self) -> TemplateTimeLimitError:
        return TemplateTimeLimitError(f"the chat template took longer than {self._limits.seconds:g} s")

    def _write(self, content: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101  (Popen was told PIPE)
        view = memoryview(content)
        while view:
            view = view[self._process.stdin.write(view) :]

    def _read_frame(self, deadline: float) -> bytes:
        (length,) = _FRAME_HEADER.unpack(self._read(_FRAME_HEADER.size, deadline))
        return self._read(length, deadline)

    def _read(self, num_bytes: int, deadline: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101  (Popen was told PIPE)
        source = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(source, select.POLLIN)
        content = bytearray()
        while len(content) < num_bytes:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            chunk = os.read(source, num_bytes - len(content))
            if not chunk:
                raise EOFError
            content += chunk
        return bytes(content)
