"""What the platform costs: the whole beside its engine, the wire beside LitServe. Turns alternate; medians are shown.

    python -m tests.bench.platform [--json FILE] [--quick] [--only whole|wire]

Needs `make bench-setup` once, which builds the model and installs the peers apart. Without them only what needs
neither is measured, and no comparison is made. All processes share the machine's processors, so run it on a quiet
one: the ratios bear some noise, the absolute figures none.
"""

import argparse
import json
import os
import platform as machine
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.common import packages
from tests.bench.platform import plan, subjects, whole, wire
from tests.bench.platform.figures import Figure, losses_first

_PACKAGES = ("grpcio", "protobuf", "onnxruntime", "uvloop", "numpy")


def about() -> dict[str, str]:
    """The machine and the versions that the figures belong to."""
    found = {"python": machine.python_version(), "processor": _processor(), "processors": str(os.cpu_count())}
    found |= {name: version(name) for name in _PACKAGES}
    return found | subjects.peer_versions()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return machine.machine()


def show(figures: list[Figure], found: dict[str, str], console: Console) -> None:
    """Two tables: what has a target, the missed ones first; then everything."""
    console.print(", ".join(f"{name} {text}" for name, text in found.items()))
    for title, rows in (("Targets, missed ones first", losses_first(figures)), ("All figures, medians", figures)):
        table = Table("bench", "what", "of", "streams", "value", "unit", "target", "", title=title)
        for row in rows:
            mark = "" if row.target is None else "missed" if row.is_missed else "met"
            value = f"{row.value:,.0f}" if row.value >= 1000 else f"{row.value:.2f}"
            target = "" if row.target is None else str(row.target)
            table.add_row(row.bench, row.metric, row.subject, str(row.streams), value, row.unit, target, mark)
        console.print(table)


def records(figures: list[Figure], found: dict[str, str]) -> list[dict[str, object]]:
    """What is written: the machine and versions first, then a record for each figure."""
    head = {"bench": "about", "streams": 0, "unit": "text"}
    return [{**head, "metric": name, "value": text} for name, text in found.items()] + [
        figure.record() for figure in figures
    ]


def tell(what: str) -> None:
    """Say what is being done."""
    print(what, file=sys.stderr, flush=True)


def measure(chosen: plan.Plan, only: str, small: Path, large: Path, figures: list[Figure]) -> None:
    """Add the figures of both benches, or of `only` one."""
    if only != "wire" and (large / "model.toml").exists():
        figures += whole.measure(chosen, large, tell)
    elif only != "wire":
        tell("whole: left out, the model is not there: `make bench-setup` builds it")
    if only != "whole":
        if chosen.with_peers and not subjects.has_litserve():
            tell("wire: LitServe is not there, so nothing is compared with it: `make bench-setup` installs it")
        for part in wire.PARTS:
            figures += part(chosen, small, tell)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.platform",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, help="write the records to this file, too")
    parser.add_argument("--quick", action="store_true", help="within four minutes, with fewer turns")
    parser.add_argument("--trial", action="store_true", help="seconds on the tests' model, to see that the bench works")
    parser.add_argument("--only", choices=("whole", "wire"), help="leave the other out")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    chosen = plan.TRIAL if given.trial else plan.QUICK if given.quick else plan.FULL
    figures: list[Figure] = []
    try:
        with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder:
            small = packages.make_small(Path(folder) / "bench-small")
            measure(chosen, given.only or "", small, small if given.trial else packages.LARGE, figures)
    finally:  # what was measured before something broke took its time
        found = about()
        show(figures, found, console)
        if given.json:
            given.json.write_text(json.dumps(records(figures, found), indent=1) + "\n")


if __name__ == "__main__":
    main()
