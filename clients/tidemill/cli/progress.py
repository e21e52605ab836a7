"""A model's way to ready: a bar on a terminal, a line for each change elsewhere; on standard error."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from tidemill.results import Progress


class WaitDisplay:
    """Shows each Progress it is given; is gone as soon as the wait is over."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._last = ""
        self._bar: Bar | None = None
        self._is_terminal = sys.stderr.isatty()

    def show(self, progress: Progress) -> None:
        """Show how far it is."""
        text = _words(progress)
        if self._is_terminal:
            self._move_bar(text, progress.fraction)
        elif text != self._last:
            sys.stderr.write(f"{self._subject}: {text}\n")
            sys.stderr.flush()
        self._last = text

    def _move_bar(self, text: str, fraction: float) -> None:
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
            self._bar = Bar(*columns, TimeElapsedColumn(), console=Console(stderr=True))
            self._bar.add_task(self._subject, total=1.0)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=fraction, description=f"{self._subject}: {text}")

    def stop(self) -> None:
        """Leave the terminal to what comes now."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _words(progress: Progress) -> str:
    text = progress.phase or progress.state
    if progress.queue_position:
        return f"{text}, {progress.queue_position} before this one"
    return text
