"""Draws a PNG for each table of a run's records. Runs in the bench's own environment:

.venv-peers-bench/bin/python -m tests.bench.engine.plots RECORDS.json FOLDER
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

_UNITS = ("tokens/s", "ms", "MiB")
_COLOURS = {
    "tidemill": "#0b6e99",
    "onnxruntime-genai": "#e07b39",
    "transformers": "#8d99ae",
    "llama.cpp": "#6a994e",
    "OpenVINO GenAI": "#7b2cbf",
}


def draw(title: str, unit: str, rows: list[dict[str, Any]], path: Path) -> None:
    """Bars side by side: a group for each batch, a bar for each engine's file."""
    batches = sorted({row["batch"] for row in rows})
    bars = list(dict.fromkeys((row["engine"], row["precision"]) for row in rows))
    width = 0.8 / len(bars)
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    for place, (engine, precision) in enumerate(bars):
        values = {
            row["batch"]: row["value"] for row in rows if (row["engine"], row["precision"]) == (engine, precision)
        }
        spots = [number + place * width for number, batch in enumerate(batches) if batch in values]
        heights = [values[batch] for batch in batches if batch in values]
        hatch = "" if not precision.endswith("row") else "//"
        colour = _COLOURS.get(engine, "#444444")
        axes.bar(spots, heights, width * 0.92, label=f"{engine} {precision}", color=colour, hatch=hatch)
    axes.set_xticks([number + 0.4 - width / 2 for number in range(len(batches))], [str(batch) for batch in batches])
    axes.set(title=title, ylabel=unit, xlabel="batch")
    axes.legend(fontsize=6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main() -> None:
    """All tables of the records."""
    records, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[tuple[str, str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in records:
        if row["unit"] in _UNITS and not row["metric"].startswith("tick"):
            family = {"q": "int"}.get(row["precision"][0], "") + row["precision"].lstrip("q").partition("_")[0]
            family = family.partition("-")[0]
            tables[row["model"], family, row["metric"].partition(", ")[0], row["unit"]].append(row)
    for (model, family, metric, unit), rows in tables.items():
        name = f"{model}-{family}-{metric}".replace(" ", "-").replace(":", "")
        draw(f"{metric}, {model}, {family}", unit, rows, folder / f"{name}.png")


if __name__ == "__main__":
    main()
