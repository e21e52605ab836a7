"""Our decoder engine beside what a user would pick instead: the same weights, the same threads, in turns.

    python -m tests.bench.engine [--quick] [--json FILE] [--plots FOLDER] [--only METRIC ...] [--model 125m|16m]

Random Llamas of 16 and 125 million parameters (`make bench-setup` makes them and installs the peers, each in an
environment of its own); a peer that is not there is named as absent, and nothing is claimed about it. Run it on a quiet
machine: the ratios of turns bear some noise, the absolute figures none.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.common import machine
from tests.bench.common.packages import ROOT
from tests.bench.engine.measure import Family, Measured, bandwidth_rows
from tests.bench.engine.peers import FAMILIES
from tests.bench.engine.plan import FULL, METRICS, QUICK, Plan
from tests.bench.engine.rows import Row, losses_first
from tests.bench.models.shapes import SHAPES

_PLOTTER = ROOT / ".venv-peers-bench" / "bin" / "python"


def tell(what: str) -> None:
    """Say what is being done."""
    print(what, file=sys.stderr, flush=True)


def about(threads: int, read_rate: float, versions: dict[str, str]) -> dict[str, str]:
    """What the figures belong to."""
    return {
        "processor": machine.processor(),
        "instructions": machine.instructions(),
        "processors": str(machine.num_processors()),
        "threads": str(threads),
        "load at the end": machine.load(),
        "memory": f"{read_rate / 1e9:.1f} GB/s read",
        "python": sys.version.split()[0],
        "onnxruntime": version("onnxruntime"),
        **versions,
    }


def show(found: Measured, facts: dict[str, str], console: Console) -> None:
    """The machine, who is absent, the comparisons with the losses first, then everything."""
    console.print(", ".join(f"{name} {text}" for name, text in facts.items()))
    for line in found.absent:
        console.print(f"[bold]absent[/bold] {line}")
    for title, rows in (("Comparisons and targets, losses first", losses_first(found.rows)), ("Medians", found.rows)):
        table = Table("model", "engine", "precision", "what", "batch", "value", "unit", "target", "", title=title)
        for row in rows:
            if title == "Medians" and row.peer:
                continue
            mark = "" if row.target is None else "missed" if row.is_missed else "met"
            target = "" if row.target is None else str(row.target)
            place = (row.model, row.engine, row.precision, row.metric, str(row.batch))
            table.add_row(*place, _written(row), row.unit, target, mark)
        console.print(table)


def _written(row: Row) -> str:
    if row.unit == "cosine":
        return f"{row.value:.5f}"
    return f"{row.value:,.0f}" if row.value >= 100 else f"{row.value:.2f}"


def chosen_plan(given: argparse.Namespace) -> Plan:
    """What the options leave of the plan."""
    plan = QUICK if given.quick else FULL
    plan = replace(plan, shapes=tuple(given.model or plan.shapes), families=tuple(given.family or plan.families))
    return replace(plan, metrics=tuple(given.only or plan.metrics), with_peers=not given.alone)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="within four minutes: 125m, int8, batch 1, 8 and 32")
    parser.add_argument("--json", type=Path, help="write the records to this file, too")
    parser.add_argument("--plots", type=Path, help="write a PNG for each table into this folder; needs --json")
    parser.add_argument("--only", nargs="+", choices=METRICS, help="these metrics")
    parser.add_argument("--model", nargs="+", choices=sorted(SHAPES))
    parser.add_argument("--family", nargs="+", choices=sorted(FAMILIES))
    parser.add_argument("--threads", type=int, default=machine.num_processors(), help="of every engine")
    parser.add_argument("--alone", action="store_true", help="without peers, and so without a comparison")
    given = parser.parse_args()
    plan, found = chosen_plan(given), Measured()
    read_rate = machine.read_rate(given.threads)
    for name in plan.shapes:
        for family in plan.families:
            Family(plan, SHAPES[name], family, given.threads, found, tell).measure()
        found.rows += list(bandwidth_rows(found.rows, SHAPES[name], read_rate))
    facts = about(given.threads, read_rate, found.versions)
    show(found, facts, Console(width=None if sys.stdout.isatty() else 160))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(records(found, facts), indent=1) + "\n")
        if given.plots:
            module = "tests.bench.engine.plots"
            subprocess.run([str(_PLOTTER), "-m", module, str(given.json), str(given.plots)], check=True, cwd=ROOT)


def records(found: Measured, facts: dict[str, str]) -> list[dict[str, object]]:
    """What is written: the machine and versions, who is absent, then every figure."""
    head = {"engine": "about", "precision": "", "batch": 0, "unit": "text"}
    notes = [*facts.items(), *(("absent", line) for line in found.absent)]
    return [{**head, "metric": name, "value": text} for name, text in notes] + [row.record() for row in found.rows]


if __name__ == "__main__":
    main()
