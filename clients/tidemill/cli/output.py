"""How answers are shown."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from tidemill.session_results import Bill


def plain(found: Any) -> Any:
    """A result as JSON has it: durations become `*_seconds`, times RFC 3339 text."""
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        return dict(_pair(field.name, getattr(found, field.name)) for field in dataclasses.fields(found))
    if isinstance(found, dict):
        return {key: plain(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [plain(value) for value in found]
    if isinstance(found, datetime):
        return found.isoformat().replace("+00:00", "Z")
    return found


_UNBOUNDED = 10_000
"""Columns; more than any table here has."""
_GAP = 2
"""Columns between those of a table."""
_DURATIONS = {
    "idle_timeout": "idle_timeout_seconds",
    "max_duration": "max_duration_seconds",
    "idle": "idle_seconds",
    "unbilled_wait": "unbilled_wait_seconds",
    "time_to_end": "time_to_end_seconds",
    "time_to_ready": "time_to_ready_seconds",
    "time_to_first_token": "time_to_first_token_seconds",
    "queue_duration": "queue_seconds",
    "total_duration": "total_seconds",
}


def _pair(name: str, value: Any) -> tuple[str, Any]:
    if name in _DURATIONS:
        return _DURATIONS[name], value.total_seconds() if isinstance(value, timedelta) else None
    return name, plain(value)


def print_json(found: Any) -> None:
    """Print one object on one line."""
    typer.echo(json.dumps(plain(found), ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: folded between words where a terminal is narrow, and elsewhere as wide as it is."""
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    terminal = Console()
    widths = _widths(cells, terminal.width if terminal.is_terminal else _UNBOUNDED)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, width=width)
    for row in cells[1:]:
        table.add_row(*row)
    Console(width=sum(widths) + _GAP * len(widths)).print(table)


def _widths(cells: Sequence[Sequence[str]], available: int) -> list[int]:
    """How wide each column is: narrowed from the last one on, but never so that a word, such as a name, is cut.

    What does not fit even so goes over the edge, for the terminal to show on its next line.
    """
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    excess = sum(widths) + _GAP * (len(widths) - 1) - available
    for place in reversed(range(len(widths))):
        longest_word = max(map(len, " ".join(columns[place]).split()))
        cut = max(0, min(excess, widths[place] - longest_word))
        widths[place] -= cut
        excess -= cut
    return widths


def print_facts(facts: dict[str, object]) -> None:
    """Print names and values, one a line; what is empty is left out."""
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        if value not in ("", None):
            typer.echo(f"{name.ljust(width)}  {value}")


def note(text: str) -> None:
    """Say something about the answer, beside it."""
    typer.echo(text, err=True)


def aside(text: str) -> None:
    """Say, dimly, what may be overlooked."""
    typer.secho(text, err=True, dim=True)


def credits_of(microcredits: int) -> str:
    """An amount of money as people read it."""
    return f"{amount_text(microcredits)} credits"


def amount_text(microcredits: int) -> str:
    """An amount of money in credits, in a column that says so."""
    whole, part = divmod(abs(microcredits), 1_000_000)
    return f"{'-' if microcredits < 0 else ''}{whole}.{part:06d}"


def bill_sentence(bill: Bill) -> str:
    """What a session has cost, in a sentence."""
    verb = "cost" if bill.final else "has cost until now"
    seconds = "1 second" if bill.billed_seconds == 1 else f"{bill.billed_seconds} seconds"
    return f"{bill.session} of {short(bill.model)} {verb} {credits_of(bill.cost_microcredits)} for {seconds}."


def time_text(moment: datetime | None) -> str:
    """A time as people read it; empty for none."""
    return f"{moment:%Y-%m-%d %H:%M:%SZ}" if moment else ""


def short(name: str) -> str:
    """A model's bare name."""
    return name.removeprefix("models/")
