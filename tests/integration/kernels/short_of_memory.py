"""A process that runs a program while its memory is limited; started by test_short_of_memory.py."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.program_graphs import Graph, session_of

DEPTH, INNER, NUM_LAYERS = 32, 8192, 40
ROOM = 8 << 20  # much less than the rows below need, and more than all that the run needs besides
MANY, FEW = 1000, 3


def deep_graph() -> Graph:
    """Many steps, so that the tables of a run are large; and wide ones, so that its rows are larger by far."""
    graph = Graph(DEPTH)
    graph.product("rows", "wide", DEPTH, INNER)
    graph.product("wide", "sum 0", INNER, DEPTH)
    for layer in range(NUM_LAYERS):
        graph.product(f"sum {layer}", f"sum {layer + 1}", DEPTH, DEPTH)
    graph.give(f"sum {NUM_LAYERS}", DEPTH)
    return graph


def mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def error_of(call: Callable[[], object]) -> str:
    """What the call fails with; nothing where it does not."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - ONNX Runtime has no common base class
        return str(error)
    return ""


def main(num_failures: int) -> None:
    session = session_of(deep_graph())
    rows = np.random.default_rng(1).standard_normal((MANY, DEPTH)).astype(np.float32)

    def run(count: int) -> np.ndarray:
        found: np.ndarray = session.run(None, {"rows": rows[:count]})[0]
        return found

    few = run(FEW)
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    before = mapped_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (before + ROOM, unlimited[1]))
    for _ in range(num_failures):
        assert "Failed to allocate memory" in error_of(lambda: run(MANY))
    assert np.array_equal(run(FEW), few)
    resource.setrlimit(resource.RLIMIT_AS, unlimited)
    grown = mapped_bytes() - before
    assert grown < ROOM // 2, f"{num_failures} runs without memory kept {grown} bytes"
    assert np.array_equal(run(MANY)[:FEW], few)


if __name__ == "__main__":
    main(int(sys.argv[1]))
