"""The decoder on an NVIDIA GPU beside what a user would pick instead, on random weights of 1 and 8 billion parameters.

    python -m tests.bench.gpu --make FOLDER            # once: checkpoints and graphs, with the peers' Python
    python -m tests.bench.gpu --models FOLDER --json FILE
    python -m tests.bench.gpu --limits                 # what GroupQueryAttention does with what it should not get

Peers run in environments of their own: `--genai-python` needs onnxruntime-genai-cuda, torch and transformers,
`--transformers-python` torch with CUDA and transformers. One whose Python is not given is absent, and nothing is said
of it. Each engine is a process of its own, in turns; the losses stand first. With `--device cpu` all of it runs on the
processor, to try the bench out.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.common.figures import Target, in_turns, median, ratio
from tests.bench.engine.rows import Row, losses_first
from tests.bench.gpu_limits import LIMITS
from tests.bench.gpu_shapes import PRECISIONS, SHAPES

ENGINES = ("ours", "transformers", "onnxruntime-genai")
MINUTES_OF_A_TURN = 20
TARGETS = {"decode": Target(1.0, is_floor=True), "prefill": Target(1.0, is_floor=True)}
BANDWIDTH_TARGET = Target(60.0, is_floor=True)  # % of what the memory can be read at, batch 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run, where."""

    models: Path
    pythons: dict[str, str]  # of each engine that takes part
    device: str
    turns: int
    num_tokens: int

    def command(self, engine: str, shape: str, precision: str) -> list[str]:
        """The line that measures one engine once."""
        line = [self.pythons[engine], "-m", "tests.bench.gpu_engines", engine, "--device", self.device]
        line += ["--checkpoint", str(self.models / shape / "checkpoint"), "--shape", shape]
        line += ["--graph", str(self.models / shape / precision), "--num-tokens", str(self.num_tokens)]
        return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; write JSON where asked."""
    given = _parser().parse_args(arguments)
    given.shape, given.precision = given.shape or ["1b", "8b"], given.precision or list(PRECISIONS)
    if given.limits:
        return _show_limits(given.device)
    if given.make is not None:
        return _make(given)
    plan = Plan(given.models, _pythons(given), given.device, given.turns, given.num_tokens)
    rows = [row for shape in given.shape for precision in given.precision for row in measure(plan, shape, precision)]
    sys.stdout.write(table(rows))
    if given.json is not None:
        given.json.write_text(json.dumps([row.record() for row in rows], indent=1))
    return 0


def measure(plan: Plan, shape: str, precision: str) -> list[Row]:
    """All engines on one model, in turns."""

    def turn(engine: str) -> dict[str, float]:
        done = subprocess.run(
            plan.command(engine, shape, precision),
            capture_output=True,
            text=True,
            timeout=60 * MINUTES_OF_A_TURN,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{engine} on {shape} {precision} ended with {done.returncode}: {done.stderr[-2000:]}")
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found

    samples = in_turns(plan.turns, {engine: lambda engine=engine: turn(engine) for engine in plan.pythons})
    return rows_of(shape, precision, samples)


def rows_of(shape: str, precision: str, samples: dict[str, list[dict[str, float]]]) -> list[Row]:
    """Figures of each engine, and ours by each peer's."""
    rows = []
    for engine, turns in samples.items():
        for metric in turns[0]:
            name, _, batch = metric.partition("@")
            unit = "%" if name == "bandwidth" else "tokens/s"
            target = BANDWIDTH_TARGET if (name, engine) == ("bandwidth", "ours") else None
            rows.append(Row(shape, engine, precision, name, int(batch), median(turns, metric), unit, target=target))
            if engine != "ours" and "ours" in samples and name in TARGETS:
                value = ratio(samples["ours"], turns, metric)
                rows.append(
                    Row(shape, "ours", precision, name, int(batch), value, "x", peer=engine, target=TARGETS[name])
                )
    return rows


def table(rows: Sequence[Row]) -> str:
    """Losses first, then every figure."""
    lines = ["| model | engine | precision | metric | batch | value | by | |", "|---|---|---|---|---|---|---|---|"]
    for row in [*losses_first(rows), *(row for row in rows if not row.peer and not row.target)]:
        verdict = "" if row.target is None else f"target {row.target}: {'**missed**' if row.is_missed else 'met'}"
        lines.append(
            f"| {row.model} | {row.engine} | {row.precision} | {row.metric} | {row.batch} "
            f"| {row.value:.2f} {row.unit} | {row.peer} | {verdict} |"
        )
    return "\n".join(lines) + "\n"


def _show_limits(device: str) -> int:
    """Each in a process of its own, since some end the process."""
    for name in LIMITS:
        line = [sys.executable, "-m", "tests.bench.gpu_limits", name, "--device", device]
        done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
        said = done.stdout.strip().splitlines()[-1:] or done.stderr.strip().splitlines()[-1:] or ["nothing"]
        end = f" (the process ended with {done.returncode})" if done.returncode else ""
        sys.stdout.write(f"{name}: {said[0]}{end}\n")
    return 0


def _make(given: argparse.Namespace) -> int:
    for shape in given.shape:
        line = [given.genai_python or sys.executable, "-m", "tests.bench.gpu_engines", "make", "--shape", shape]
        line += ["--checkpoint", str(given.make / shape / "checkpoint"), "--device", given.device]
        for precision in given.precision:
            subprocess.run([*line, "--graph", str(given.make / shape / precision)], check=True)
    return 0


def _pythons(given: argparse.Namespace) -> dict[str, str]:
    found = {"ours": sys.executable, "transformers": given.transformers_python, "onnxruntime-genai": given.genai_python}
    return {engine: python for engine, python in found.items() if python}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--models", type=_folder, help="what --make made")
    what.add_argument("--make", type=Path, help="where checkpoints and graphs are made")
    what.add_argument("--limits", action="store_true", help="try what no run may be given")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="default: 1b and 8b")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="default: all")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--num-tokens", type=int, default=128, help="that each sequence decodes")
    parser.add_argument("--genai-python", default="")
    parser.add_argument("--transformers-python", default="")
    parser.add_argument("--json", type=Path)
    return parser


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no folder; `--make` makes one")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
