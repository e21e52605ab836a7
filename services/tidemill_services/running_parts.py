"""The parts of a program that run beside each other: stopped in the reverse order of their start."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

logger = logging.getLogger(__name__)


class RunningParts(AsyncExitStack):
    """Whatever was started. `on_broken` is called with a sentence when a part breaks."""

    def __init__(self, on_broken: Callable[[str], None]) -> None:
        super().__init__()
        self._on_broken = on_broken

    def keep_running(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a part until it is stopped; one that breaks is told of, so that nothing goes on half."""
        task = asyncio.create_task(work, name=name)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.critical("%s broke", name, exc_info=error)
                self._on_broken(f"{name} broke: {error}")

        async def stop() -> None:
            task.cancel()
            await asyncio.wait({task})

        task.add_done_callback(ended)
        self.push_async_callback(stop)
