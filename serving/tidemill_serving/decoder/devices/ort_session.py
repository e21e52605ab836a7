"""Makes sessions of ONNX Runtime on the processor, and the prepared copies that they start from faster."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import onnxruntime as ort

from tidemill_models.errors import GraphError
from tidemill_models.graph import read_graph
from tidemill_serving.decoder.devices.device import ModelRefusedError
from tidemill_serving.start_cache.prepared import GRAPH, WEIGHTS, PreparedGraph

RUNTIME = f"onnxruntime {ort.__version__}"
_QUIET = 4  # log nothing: every failure comes back as an exception
_MIN_WEIGHT_BYTES = "1024"  # smaller ones stay in the graph


def open_session(graph: Path, *, num_threads: int, spinning: bool, copy: PreparedGraph | None = None) -> Any:
    """A session of the graph, from its prepared copy where there is one that can be loaded.

    Raises ModelRefusedError.
    """
    if not graph.is_file():
        raise ModelRefusedError(f"the graph {graph.name} is missing")
    if copy is not None and copy.is_made():
        with copy.being_loaded() as may_load:
            if may_load:
                try:
                    return open_prepared(copy.graph, num_threads=num_threads, spinning=spinning)
                except ModelRefusedError as error:
                    copy.remove(str(error))
    return _session(graph, _options(num_threads, spinning))


def open_prepared(graph: Path, *, num_threads: int, spinning: bool) -> Any:
    """A session of a graph that `save_prepared` wrote. Raises ModelRefusedError."""
    options = _options(num_threads, spinning)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimised
    return _session(graph, options)


def save_prepared(graph: Path, folder: Path) -> None:
    """Write the optimised graph, and its weights as the kernels want them, into `folder`. Raises ModelRefusedError."""
    options = _options(1, spinning=False)
    options.optimized_model_filepath = str(folder / GRAPH)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", _MIN_WEIGHT_BYTES
    )
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    _session(graph, options)


def _options(num_threads: int, spinning: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    # It would keep one memory plan for each shape that ever ran: as many as there are lengths.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return options


def _session(graph: Path, options: ort.SessionOptions) -> Any:
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelRefusedError(
            f"the graph {graph.name} cannot be loaded: {sentence_of(error)}{_hint(graph)}"
        ) from error


def _hint(graph: Path) -> str:
    """What of a graph explains why it cannot be loaded; empty where nothing is known."""
    with suppress(GraphError):
        keys = read_graph(graph).inputs.get("past_key_values.0.key")
        if keys is not None and keys.dtype == "bfloat16":
            return "; bfloat16 runs on a GPU (`--device cuda`)"
    return ""


def sentence_of(error: Exception) -> str:
    """ONNX Runtime's message without its prefix, cut to a readable length."""
    return str(error).rpartition("Status Message: ")[2].replace("\n", " ")[:300]
