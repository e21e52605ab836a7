"""An engine with one of its files, and its process."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.common.processes import Child, child
from tests.bench.engine.peers import ENGINES, FAMILIES, OURS, SAME_FILE, Engine
from tests.bench.engine.plan import Plan
from tests.bench.models.shapes import Shape


@dataclass(frozen=True, slots=True)
class Entrant:
    """An engine with one of its files."""

    engine: Engine
    precision: str
    model: Path

    @property
    def name(self) -> str:
        """For turns and for people."""
        return f"{self.engine.name} {self.precision}"

    @property
    def is_ours(self) -> bool:
        """Whether it is measured against the others."""
        return self.engine.name == OURS

    def meets(self, other: "Entrant") -> bool:
        """Whether they are compared: who runs our very file with that only, the others as they made their own."""
        same_file = self.model == other.model
        return self.is_ours and not other.is_ours and (same_file or other.engine.name not in SAME_FILE)

    @contextmanager
    def start(self, threads: int, slots: int, keep: Path | None = None) -> Iterator[Child]:
        """Its process, loaded, with its phases told."""
        os.environ["TIDEMILL_BENCH_STARTED"] = str(time.time())
        arguments = ["--model", str(self.model), "--precision", self.precision]
        arguments += ["--threads", str(threads), "--slots", str(slots)]
        arguments += self.engine.arguments
        arguments += ["--keep", str(keep)] if keep else []
        with child(self.engine.module, *arguments, python=self.engine.python) as started:
            yield started


def entrants_of(plan: Plan, shape: Shape, family: str) -> tuple[dict[str, Entrant], list[str]]:
    """Who runs, by name, and who is absent, with the reason."""
    found, absent = {}, []
    for precision in FAMILIES[family]:
        for engine in ENGINES:
            if precision not in engine.files or precision in plan.left_out:
                continue
            if engine.name != OURS and not plan.with_peers:
                continue
            if why := engine.why_absent(shape, precision):
                absent.append(f"{engine.name} {precision} of {shape.name}: {why}")
                continue
            entrant = Entrant(engine, precision, engine.model(shape, precision))
            found[entrant.name] = entrant
    return found, absent
