"""Runs the plan: all engines of one family of precisions in the same turns."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from tests.bench.common.processes import Child
from tests.bench.engine.cold import measure_cold_starts
from tests.bench.engine.entrants import Entrant, entrants_of
from tests.bench.engine.metrics import METRIC_OF
from tests.bench.engine.peers import OURS
from tests.bench.engine.plan import Plan
from tests.bench.engine.rows import Row, bandwidth_target
from tests.bench.engine.turns import Measured, Turns
from tests.bench.engine.workloads import Prompts
from tests.bench.models.shapes import Shape

Tell = Callable[[str], None]


def measure_family(plan: Plan, shape: Shape, family: str, threads: int, found: Measured, tell: Tell) -> None:
    """All metrics of the plan, of one model in one family of precisions, on so many threads."""
    entrants, absent = entrants_of(plan, shape, family)
    found.absent += absent
    turns = Turns(plan, shape, family, entrants, found)
    slots = max(plan.batches)
    with ExitStack() as stack:
        children = {}
        for name, entrant in entrants.items():
            if process := _try_start(entrant, threads, slots, stack, shape, found):
                children[name] = process
                found.note_start(f"{name} of {shape.name}", process.said)
        prompts = Prompts(shape.vocabulary_size)
        for metric, measure in METRIC_OF.items():
            if metric in plan.metrics:
                tell(f"{shape.name} {family}: {metric} of {', '.join(children)}")
                measure(turns, children, prompts)
    if "cold" in plan.metrics:
        tell(f"{shape.name} {family}: cold starts of {', '.join(children)}")
        measure_cold_starts(turns, list(children), threads, slots)


def _try_start(
    entrant: Entrant, threads: int, slots: int, stack: ExitStack, shape: Shape, found: Measured
) -> Child | None:
    """The entrant's process, loaded; None for a peer that does not start, which the report says."""
    try:
        return stack.enter_context(entrant.start(threads, slots))
    except AssertionError as error:
        if entrant.engine.name == OURS:
            raise
        found.absent.append(f"{entrant.name} of {shape.name}: it did not start: {error}")
        return None


def bandwidth_rows(rows: Sequence[Row], shape: Shape, bytes_per_second: float) -> Iterator[Row]:
    """What share of the memory's read rate our decoding at batch 1 comes to, by the weights that a step reads."""
    for row in rows:
        if (row.model, row.engine, row.metric, row.batch) != (shape.name, OURS, "decode", 1):
            continue
        family, _, grain = row.precision.partition("-")
        bits = {"fp32": 32.0, "int8": 8.0, "int4": 4.0}[family] + (32 / int(grain[1:]) if grain.startswith("b") else 0)
        share = 100 * row.value * shape.num_matrix_weights * bits / 8 / bytes_per_second
        target = bandwidth_target(shape.name, family)
        yield Row(shape.name, OURS, row.precision, "share of the memory's bandwidth", 1, share, "%", target=target)
