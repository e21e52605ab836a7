"""Our decoder engine beside what a user would pick instead: the same weights, the same threads, in turns.

    python -m tests.bench.engine [--quick] [--json FILE] [--markdown FILE] [--plots FOLDER]
    python -m tests.bench.engine --only METRIC ... --model 125m --family int8 --json PIECE
    python -m tests.bench.engine --merge PIECE ... [--json FILE] [--markdown FILE] [--plots FOLDER]

Random Llamas of 16 and 125 million parameters (`make bench-setup` makes them and installs the peers, each in an
environment of its own); a peer that is not there is named as absent, and nothing is claimed about it. Run it on a quiet
machine: the ratios of turns bear some noise, the absolute figures none. `--plan` says how long what would take.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.common import machine
from tests.bench.common.packages import ROOT
from tests.bench.engine.entrants import entrants_of
from tests.bench.engine.measure import bandwidth_rows, measure_family
from tests.bench.engine.peers import FAMILIES
from tests.bench.engine.plan import FULL, METRICS, QUICK, Plan, pieces
from tests.bench.engine.report import Report, as_markdown, merged, read, show
from tests.bench.engine.turns import Measured
from tests.bench.models.shapes import SHAPES

_QUIET_SHARE = 0.05
_PLOTTER = ROOT / ".venv-peers-bench" / "bin" / "python"


def tell(what: str) -> None:
    """Say what is being done."""
    print(what, file=sys.stderr, flush=True)


def about(threads: int, read_rate: float, facts: dict[str, str]) -> dict[str, str]:
    """What the figures belong to."""
    return {
        "processor": machine.processor(),
        "instructions": machine.instructions(),
        "processors": str(machine.num_processors()),
        "threads of each engine": str(threads),
        "load at the end": machine.load(),
        "memory": f"{read_rate / 1e9:.1f} GB/s read",
        "python": sys.version.split()[0],
        "onnxruntime": version("onnxruntime"),
        **facts,
    }


def chosen_plan(given: argparse.Namespace) -> Plan:
    """What the options leave of the plan."""
    plan = QUICK if given.quick else FULL
    plan = replace(plan, shapes=tuple(given.model or plan.shapes), families=tuple(given.family or plan.families))
    return replace(plan, metrics=tuple(given.only or plan.metrics), with_peers=not given.alone)


def estimate(plan: Plan) -> Table:
    """Minutes of each metric, by model and family."""
    running = {
        (shape, family): entrants_of(plan, SHAPES[shape], family)[0]
        for shape in plan.shapes
        for family in plan.families
    }
    counts = {key: sum(each.engine.slowness for each in entrants.values()) for key, entrants in running.items()}
    minutes: dict[tuple[str, str], list[float]] = {key: [] for key in counts}
    for shape, family, _, seconds in pieces(plan, counts):
        minutes[shape, family].append(seconds / 60)
    total = sum(sum(each) for each in minutes.values())
    table = Table("model", "family", "engines", *plan.metrics, "all", title=f"About {total:.0f} minutes")
    for (shape, family), each in minutes.items():
        cells = [f"{value:.1f}" for value in (*each, sum(each))]
        table.add_row(shape, family, str(len(running[shape, family])), *cells)
    return table


def quietness(share: float) -> str:
    """How far what others took lets figures be compared."""
    return f"{share:.0%}" + (": not a quiet machine" if share > _QUIET_SHARE else "")


def measure(plan: Plan, threads: int) -> Iterator[Report]:
    """What is known after each family of each model: who ends it too soon keeps what was measured."""
    found, read_rate = Measured(), machine.read_rate(threads)
    for name in plan.shapes:
        for family in plan.families:
            num_rows, others = len(found.rows), machine.Others()
            measure_family(plan, SHAPES[name], family, threads, found, tell)
            found.facts[f"other programs' share of the processors, {name} {family}"] = quietness(others.share())
            found.rows += list(bandwidth_rows(found.rows[num_rows:], SHAPES[name], read_rate))
            yield Report(about(threads, read_rate, found.facts), list(found.absent), list(found.rows))


def draw(report: Report, folder: Path) -> None:
    """A PNG for each table, by matplotlib in an environment of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        report.write(Path(file.name))
        command = [str(_PLOTTER), "-m", "tests.bench.engine.plots", file.name, str(folder)]
        subprocess.run(command, check=True, cwd=ROOT)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="within four minutes: 125m, int8, batch 1, 8 and 32")
    parser.add_argument("--plan", action="store_true", help="say what would be measured, and about how long it takes")
    parser.add_argument("--merge", nargs="+", type=Path, metavar="PIECE", help="measure nothing; join these records")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    parser.add_argument("--plots", type=Path, help="write a PNG for each table into this folder")
    parser.add_argument("--only", nargs="+", choices=METRICS, help="these metrics")
    parser.add_argument("--model", nargs="+", choices=sorted(SHAPES))
    parser.add_argument("--family", nargs="+", choices=sorted(FAMILIES))
    parser.add_argument("--threads", type=int, default=machine.num_processors(), help="of every engine")
    parser.add_argument("--alone", action="store_true", help="without peers, and so without a comparison")
    given = parser.parse_args()
    if given.merge:
        try:
            given.report = merged([read(path) for path in given.merge])
        except (OSError, ValueError) as error:
            parser.error(f"argument --merge: {error}")
    return given


def main() -> None:
    """Measure or merge; print, write, draw."""
    given, console = parsed(), Console(width=None if sys.stdout.isatty() else 170)
    plan = chosen_plan(given)
    if given.plan:
        console.print(estimate(plan))
        return
    if given.merge:
        reports = iter([given.report])
    else:
        Console(stderr=True, width=150).print(estimate(plan))
        reports = measure(plan, given.threads)
    for report in reports:
        if given.json:
            report.write(given.json)
    show(report, console)
    if given.markdown:
        plots = os.path.relpath(given.plots, given.markdown.parent) if given.plots else None
        given.markdown.write_text(as_markdown(report, plots))
    if given.plots:
        draw(report, given.plots)


if __name__ == "__main__":
    main()
