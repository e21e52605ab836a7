"""Renders chat templates in processes of their own, so that no template can harm or hold up whoever asks."""

import asyncio
import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from tidemill_models.errors import (
    TemplateError,
    TemplateRefusedError,
    TemplateRendererError,
    TemplateRenderError,
    TemplateSizeLimitError,
    TemplateSyntaxError,
)
from tidemill_models.template_process import TemplateLimits, TemplateProcess

_ERRORS: Mapping[str, type[TemplateError]] = {
    "syntax": TemplateSyntaxError,
    "refused": TemplateRefusedError,
    "size": TemplateSizeLimitError,
    "render": TemplateRenderError,
}


class TemplateRenderer:
    """A few long-lived worker processes, each behind one thread; started when needed, replaced when they die.

    Any number of threads and event loops may use one renderer. More renderings than processes wait for their turn.
    """

    def __init__(self, limits: TemplateLimits = TemplateLimits(), *, num_processes: int = 2) -> None:  # noqa: B008
        """`num_processes` renderings run at once: one hostile template holds up only its own process."""
        self._limits = limits
        self._threads = ThreadPoolExecutor(num_processes, thread_name_prefix="chat-template")
        self._own = threading.local()  # .process: the worker of this thread
        self._lock = threading.Lock()
        self._processes: set[TemplateProcess] = set()
        self._is_closed = False

    async def render(self, source: str, variables: Mapping[str, Any]) -> str:
        """Render the template `source` with JSON-like `variables`. Raises TemplateError and TemplateRendererError."""
        return await asyncio.wrap_future(self._submit(source, variables))

    def render_blocking(self, source: str, variables: Mapping[str, Any]) -> str:
        """`render` for a caller without an event loop."""
        return self._submit(source, variables).result()

    def close(self) -> None:
        """End all processes; what still renders or waits fails with TemplateRendererError."""
        with self._lock:
            self._is_closed = True
            for process in self._processes:
                process.kill()
        self._threads.shutdown()
        for process in self._processes:
            process.close()
        self._processes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, source: str, variables: Mapping[str, Any]) -> Future[str]:
        num_bytes = len(source.encode(errors="replace"))
        if num_bytes > self._limits.source_bytes:
            limit = self._limits.source_bytes
            raise TemplateSizeLimitError(f"the chat template has {num_bytes} bytes; the limit is {limit}")
        request = json.dumps({"source": source, "variables": dict(variables)}).encode()
        try:
            return self._threads.submit(self._render, request)
        except RuntimeError as error:
            raise TemplateRendererError("the template renderer is closed") from error

    def _render(self, request: bytes) -> str:
        """In one of the pool's threads."""
        if self._is_closed:
            raise TemplateRendererError("the template renderer was closed")
        process = self._process()
        try:
            answer = json.loads(process.ask(request))
        except TemplateError:
            self._forget(process)
            if self._is_closed:
                raise TemplateRendererError("the template renderer was closed") from None
            raise
        if answer["is_last"]:
            self._forget(process)
            process.close(grace_seconds=1.0)
        if "error" in answer:
            raise _ERRORS[answer["error"]](f"the chat template failed: {answer['message']}")
        return str(answer["text"])

    def _process(self) -> TemplateProcess:
        process: TemplateProcess | None = getattr(self._own, "process", None)
        if process is not None and process.is_alive:
            return process
        if process is not None:
            self._forget(process)
            process.close()
        process = TemplateProcess(self._limits)
        with self._lock:
            self._processes.add(process)
            if self._is_closed:
                process.kill()
        self._own.process = process
        return process

    def _forget(self, process: TemplateProcess) -> None:
        self._own.process = None
        with self._lock:
            self._processes.discard(process)
