"""Printing an answer as it comes."""

import sys
import time
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TextIO

from tidemill.results import Usage


@dataclass(frozen=True, slots=True)
class PrintedAnswer:
    """What was printed, and how fast it came."""

    text: str
    time_to_first_token: timedelta | None
    """From the start of printing, which is what starts the generation, to the first text; None when no text came."""
    finish_reason: str
    """Empty for an iterator that is not a stream of ours."""
    usage: Usage | None
    """None for an iterator that is not a stream of ours."""
    tokens_per_second: float | None
    """How fast tokens came after the first piece; None when fewer than 16 did, or all within 0.1 s."""


class _Printer:
    """Writes pieces, and notices when the first one came."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = sys.stdout if file is None else file
        self._started = time.monotonic()
        self._first: float | None = None
        self._texts: list[str] = []

    def write(self, text: str) -> None:
        if text and self._first is None:
            self._first = time.monotonic()
        self._texts.append(text)
        self._file.write(text)
        self._file.flush()

    def end_line(self) -> None:
        self._file.write("\n")
        self._file.flush()

    def answer(self, source: object) -> PrintedAnswer:
        return PrintedAnswer(
            text="".join(self._texts),
            time_to_first_token=None if self._first is None else timedelta(seconds=self._first - self._started),
            finish_reason=getattr(source, "finish_reason", ""),
            usage=getattr(source, "usage", None),
            tokens_per_second=getattr(source, "tokens_per_second", None),
        )


def print_stream(source: Iterable[str], file: TextIO | None = None) -> PrintedAnswer:
    """Print each piece as it comes, then a line's end, also when the stream breaks."""
    printer = _Printer(file)
    try:
        for text in source:
            printer.write(text)
    finally:
        printer.end_line()
    return printer.answer(source)


async def print_async_stream(source: AsyncIterable[str], file: TextIO | None = None) -> PrintedAnswer:
    """As `print_stream`, for an asynchronous stream."""
    printer = _Printer(file)
    try:
        async for text in source:
            printer.write(text)
    finally:
        printer.end_line()
    return printer.answer(source)
