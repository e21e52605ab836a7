"""A package's graph as a session is to have it: without its large weights, and with our kernels in it.

Apart from the sessions, since a start from a prepared copy needs none of it.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidemill_models.errors import GraphError
from tidemill_models.graph import read_graph
from tidemill_models.protobuf_wire import WireMessage
from tidemill_serving.decoder.devices.graph_weights import Weights, light_graph, weights_of
from tidemill_serving.decoder.devices.own_kernels import rewritten
from tidemill_serving.native.library import Kernels


@dataclass(frozen=True, slots=True)
class OriginalGraph:
    """A model without its large weights, which are handed to a session beside it."""

    model: bytes
    weights: Weights  # where they lie in the package
    packed: dict[str, NDArray[np.uint8]]  # by our kernels, for themselves


def read_original(
    graph: Path, kernels: Kernels | None, num_threads: int, python_is_free: Callable[[], None] = lambda: None
) -> OriginalGraph:
    """The graph with our kernels in it, if these are used and know something of it.

    `python_is_free` is called when weights are all that is still packed. Raises GraphError, OSError, ValueError.
    """
    model = light_graph(graph)
    found = rewritten(WireMessage(model, 0, len(model)), graph.parent, kernels, num_threads) if kernels else None
    try:
        model, packed = (found.model, found.weights) if found else (model, {})
        weights = weights_of(model, graph.parent, handed=packed)
        python_is_free()
    finally:
        if found:
            found.packing.wait()
    return OriginalGraph(model, weights, packed)


def hint_about(graph: Path) -> str:
    """What of a graph explains why it cannot be loaded; empty where nothing is known."""
    with suppress(GraphError):
        keys = read_graph(graph).inputs.get("past_key_values.0.key")
        if keys is not None and keys.dtype == "bfloat16":
            return "; bfloat16 runs on a GPU (`--device cuda`)"
    return ""
