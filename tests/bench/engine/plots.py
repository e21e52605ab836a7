"""Draws a PNG for each table of a run's records. Runs in the bench's own environment:

.venv-peers-bench/bin/python -m tests.bench.engine.plots RECORDS.json FOLDER
"""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from tests.bench.engine.peers import FAMILY_OF
from tests.bench.engine.rows import Row
from tests.bench.engine.tables import PLOTTED, column, plot_name

mpl.use("Agg")
from matplotlib import pyplot as plt

_COLOURS = {
    "tidemill": "#0b6e99",
    "tidemill stock": "#9ccbe0",
    "onnxruntime-genai": "#e07b39",
    "transformers": "#8d99ae",
    "llama.cpp": "#6a994e",
    "OpenVINO GenAI": "#7b2cbf",
}
_WIDE = 50  # the largest value by the least from which on small bars are no longer seen
_HATCHES = {"row": "//", "b128": ".."}


def draw(title: str, unit: str, rows: Sequence[Row], path: Path) -> None:
    """Bars side by side: a group for each column of the table, a bar for each engine's file."""
    groups = list(dict.fromkeys(column(row) for row in sorted(rows, key=lambda row: row.batch)))
    bars = list(dict.fromkeys((row.engine, row.precision) for row in rows))
    width = 0.8 / len(bars)
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    for place, (engine, precision) in enumerate(bars):
        values = {column(row): row.value for row in rows if (row.engine, row.precision) == (engine, precision)}
        spots = [number + place * width for number, group in enumerate(groups) if group in values]
        heights = [values[group] for group in groups if group in values]
        hatch = _HATCHES.get(precision.partition("-")[2], "")
        colour = _COLOURS.get(engine, "#444444")
        axes.bar(spots, heights, width * 0.92, label=f"{engine} {precision}", color=colour, hatch=hatch)
    axes.set_xticks([number + 0.4 - width / 2 for number in range(len(groups))], groups)
    axes.set(title=title, ylabel=unit)
    if max(row.value for row in rows) > _WIDE * min(row.value for row in rows):
        axes.set_yscale("log")
    axes.legend(fontsize=6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main() -> None:
    """All tables of the records."""
    records, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
    for row in (Row.from_record(record) for record in records if record["engine"] != "about"):
        if row.unit in PLOTTED and not row.peer:
            tables[row.model, FAMILY_OF[row.precision], row.table, row.unit].append(row)
    for (model, family, name, unit), rows in tables.items():
        draw(f"{name}, {model}, {family}", unit, rows, folder / plot_name(model, family, name))


if __name__ == "__main__":
    main()
