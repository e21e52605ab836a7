"""How far a download is: a bar for each file on a terminal, a line for each file elsewhere; on standard error."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class DownloadBar:
    """Gone as soon as it is left."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not self._is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def show(self, file: str, done: int, size: int) -> None:
        """A file has `done` of its `size` bytes."""
        if file not in self._tasks:
            self._tasks[file] = self._bar.add_task(file, total=size)
            if not self._is_terminal:
                sys.stderr.write(f"Fetching {file}, {size / 1e6:,.1f} MB.\n")
                sys.stderr.flush()
        self._bar.update(self._tasks[file], completed=done)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
