"""Rows as tables: one for each subject of measurement, of a model in a family of precisions."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bench.engine.peers import FAMILY_OF
from tests.bench.engine.plan import FULL
from tests.bench.engine.rows import Row

PLOTTED = ("tokens/s", "ms", "MiB")  # units of which a PNG is drawn


@dataclass(frozen=True, slots=True)
class Figures:
    """A table; a line for each engine with its precision, or for each comparison, the worst first."""

    title: str
    plot: str  # the name of its PNG; "": it has none
    columns: tuple[str, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]


def figures_of(rows: Sequence[Row]) -> Iterator[Figures]:
    """Medians, and behind each table of them the ratios of ours to its peers."""
    tables: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        tables[row.model, FAMILY_OF[row.precision], row.table].append(row)
    order = list(itertools.product(FULL.shapes, FULL.families))
    for model, family, name in sorted(tables, key=lambda key: order.index(key[:2])):
        members = tables[model, family, name]
        medians = [row for row in members if not row.peer]
        units = "; ".join(dict.fromkeys(row.unit for row in medians))
        plot = plot_name(model, family, name) if any(row.unit in PLOTTED for row in medians) else ""
        yield _table(f"{name}, {model}, {family}: {units}", medians, plot)
        ratios = sorted((row for row in members if row.peer), key=lambda row: row.value)
        if ratios:
            yield _table(f"{name}, {model}, {family}: ours by its peers, above 1 is ahead", ratios)


def column(row: Row) -> str:
    """Where it stands in its table's lines."""
    return row.part or f"batch {row.batch}"


def written(row: Row) -> str:
    """Its value, as exactly as it is worth."""
    if row.unit == "cosine":
        return f"{row.value:.5f}"
    return f"{row.value:,.0f}" if row.value >= 100 else f"{row.value:.2f}"


def plot_name(model: str, family: str, table: str) -> str:
    """What the PNG of a table is called."""
    return "-".join(f"{model} {family} {table}".replace(",", "").split()) + ".png"


def _table(title: str, rows: Sequence[Row], plot: str = "") -> Figures:
    places = {(row.batch, row.part): column(row) for row in sorted(rows, key=lambda row: row.batch)}
    columns = tuple(dict.fromkeys(places.values()))
    lines: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        label = f"{row.subject} by {row.peer}" if row.peer else row.subject
        mark = f" ({row.target}: missed)" if row.is_missed else ""
        lines[label][column(row)] = written(row) + mark
    cells = ((label, tuple(line.get(name, "") for name in columns)) for label, line in lines.items())
    return Figures(title, plot, columns, tuple(cells))
