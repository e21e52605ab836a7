"""What a run, or several, have found: kept as records, merged, shown."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.engine.rows import Row, losses_first
from tests.bench.engine.tables import Figures, figures_of, written

_ABOUT, _ABSENT = "about", "absent"
_SAME = ("processor", "processors", "instructions", "threads of each engine")  # else figures do not belong in one table


@dataclass(frozen=True, slots=True)
class Report:
    """The machine and the versions, who is absent, and every figure."""

    facts: Mapping[str, str]
    absent: Sequence[str]
    rows: Sequence[Row]

    def records(self) -> list[dict[str, object]]:
        """For a file; facts have `about` for their engine."""
        head = {"engine": _ABOUT, "precision": "", "batch": 0, "unit": "text"}
        notes = [*self.facts.items(), *((_ABSENT, line) for line in self.absent)]
        return [{**head, "metric": name, "value": text} for name, text in notes] + [row.record() for row in self.rows]

    @classmethod
    def from_records(cls, records: Sequence[Mapping[str, Any]]) -> "Report":
        """What `records` made."""
        notes = [(each["metric"], each["value"]) for each in records if each["engine"] == _ABOUT]
        facts = {name: text for name, text in notes if name != _ABSENT}
        absent = [text for name, text in notes if name == _ABSENT]
        return cls(facts, absent, [Row.from_record(each) for each in records if each["engine"] != _ABOUT])

    def write(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.records(), indent=1) + "\n")


def read(path: Path) -> Report:
    """A file that `Report.write` wrote."""
    return Report.from_records(json.loads(path.read_text()))


def merged(reports: Sequence[Report]) -> Report:
    """One report of the pieces of a run; where two hold the same figure, the later one's stays.

    Raises ValueError where they are of different machines, or of different numbers of threads.
    """
    for name in _SAME:
        found = {report.facts.get(name, "") for report in reports}
        if len(found) > 1:
            raise ValueError(f"these do not belong together: {name} is {' and '.join(sorted(found))}")
    facts: dict[str, list[str]] = {}
    rows: dict[tuple[object, ...], Row] = {}
    for report in reports:
        for name, text in report.facts.items():
            facts.setdefault(name, []).append(text)
        rows |= {(row.model, row.engine, row.precision, row.metric, row.batch): row for row in report.rows}
    absent = dict.fromkeys(line for report in reports for line in report.absent)
    return Report(
        {name: " / ".join(dict.fromkeys(texts)) for name, texts in facts.items()}, list(absent), list(rows.values())
    )


def show(report: Report, console: Console) -> None:
    """The machine, who is absent, what was missed or lost first, then all tables."""
    for name, text in report.facts.items():
        console.print(f"{name}: {text}", highlight=False, markup=False)
    for line in report.absent:
        console.print(f"[bold]absent[/bold] {line}")
    table = Table("model", "engine", "precision", "what", "batch", "value", "unit", "target", "", title=_LOSSES)
    for cells in _losses(report.rows):
        table.add_row(*cells)
    console.print(table)
    for figures in figures_of(report.rows):
        table = Table("", *figures.columns, title=figures.title)
        for label, cells in figures.lines:
            table.add_row(label, *cells)
        console.print(table)


_HEAD = """\
# The engine beside its peers: every table

Written by `python -m tests.bench.engine --markdown`. What is measured, and how, is said in
[Performance](../performance.md)."""
_LOSSES = "Targets and losses, the missed and the worst first"


def _losses(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    for row in losses_first([row for row in rows if row.target or row.is_lost]):
        mark = "lost" if row.target is None else "missed" if row.is_missed else "met"
        target = "" if row.target is None else str(row.target)
        yield (row.model, row.engine, row.precision, row.metric, str(row.batch), written(row), row.unit, target, mark)


def as_markdown(report: Report, plots: str | None = None) -> str:
    """The same for a page of the documentation; `plots`: where the PNGs lie, as the page's links name it."""
    head = ("model", "engine", "precision", "what", "batch", "value", "unit", "target", "")
    facts = [f"- {name}: {text}" for name, text in report.facts.items()]
    absent = [f"- absent: {line}" for line in report.absent]
    parts = [_HEAD, "\n".join([*facts, *absent]), f"## {_LOSSES}", _grid(head, _losses(report.rows))]
    for figures in figures_of(report.rows):
        parts += [f"## {figures.title}", _grid(("", *figures.columns), _lines(figures))]
        if plots is not None and figures.plot:
            parts.append(f"![{figures.title}]({plots}/{figures.plot})")
    return "\n\n".join(parts) + "\n"


def _lines(figures: Figures) -> Iterator[tuple[str, ...]]:
    for label, cells in figures.lines:
        yield (label, *cells)


def _grid(head: Sequence[str], lines: Iterator[tuple[str, ...]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
