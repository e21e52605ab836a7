"""Makes sessions of ONNX Runtime on the processor, and the prepared copies that they start from faster."""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from tidemill_models.errors import GraphError, ModelPackageError
from tidemill_serving.decoder.devices.device import ModelRefusedError
from tidemill_serving.decoder.devices.graph_weights import weights_of
from tidemill_serving.decoder.devices.mapped_file import rewrite_for_mapping
from tidemill_serving.native import KernelsChoice
from tidemill_serving.native.library import Kernels, choose_kernels
from tidemill_serving.start_cache.prepared import GRAPH, WEIGHTS, PreparedGraph

_QUIET = 4  # log nothing: every failure comes back as an exception
_MIN_WEIGHT_BYTES = "1024"  # smaller ones stay in the graph


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a session is made with, besides its graph."""

    num_threads: int
    spinning: bool
    kernels: KernelsChoice = "auto"


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """What others do while a graph is loaded."""

    until_right: Callable[[], None] = lambda: None
    """Waits until the graph is known to be the package's, or raises ModelPackageError: ONNX Runtime gets it no sooner.
    Our own reading of it, and the packing of its weights, trust nothing, and go on meanwhile."""

    python_is_free: Callable[[], None] = lambda: None
    """Called when the rest of loading leaves Python to others, who would have delayed it before."""


NOTHING = Meanwhile()


def runtime_name(choice: KernelsChoice = "auto") -> str:
    """What computes here; a prepared copy is for it alone. Raises ModelRefusedError."""
    kernels, name = _kernels(choice), f"onnxruntime {ort.__version__}"
    if kernels is None:
        return name
    return f"{name}, kernels {kernels.version}" + " with floats" * kernels.multiplies_floats


def open_session(
    graph: Path,
    settings: SessionSettings,
    copy: PreparedGraph | None = None,
    meanwhile: Meanwhile = NOTHING,
) -> Any:
    """A session of the graph, from its prepared copy where there is one that can be loaded.

    Raises ModelRefusedError.
    """
    if not graph.is_file():
        raise ModelRefusedError(f"the graph {graph.name} is missing")
    if copy is not None and copy.is_made():
        with copy.being_loaded() as may_load:
            if may_load:
                try:
                    meanwhile.python_is_free()
                    return _open_prepared(copy.graph, settings)
                except ModelRefusedError as error:
                    copy.remove(str(error))
    return _open_original(graph, settings, _options(settings), meanwhile)


def save_prepared(graph: Path, folder: Path, settings: SessionSettings) -> None:
    """Write the optimised graph, and its weights as the kernels want them, into `folder`.

    Raises ModelRefusedError, OSError.
    """
    options = _options(settings)
    options.optimized_model_filepath = str(folder / GRAPH)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", _MIN_WEIGHT_BYTES
    )
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    _open_original(graph, settings, options, NOTHING)
    if _kernels(settings.kernels):
        rewrite_for_mapping(folder / WEIGHTS)


def _open_original(graph: Path, settings: SessionSettings, options: ort.SessionOptions, meanwhile: Meanwhile) -> Any:
    """A session of the graph as the package has it, with our kernels in it where they are used."""
    # Not above: a start from a prepared copy needs none of it.
    from tidemill_serving.decoder.devices.original_graph import hint_about, read_original  # noqa: PLC0415

    model: Path | bytes = graph
    weights: dict[str, NDArray[Any]] = {}
    original = None
    try:
        with suppress(GraphError, OSError, ValueError):  # what is wrong with it ONNX Runtime says
            original = read_original(graph, _kernels(settings.kernels), settings.num_threads, meanwhile.python_is_free)
    finally:
        _await(meanwhile.until_right)  # of a file that was changed this says more than what failed in it
    if original is not None:
        model, weights = original.model, original.weights.arrays | original.packed
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.parent))
        if original.packed and options.optimized_model_filepath:  # only there; ONNX Runtime writes a copy that it makes
            values = [ort.OrtValue.ortvalue_from_numpy(array) for array in original.packed.values()]
            options.add_external_initializers(list(original.packed), values)
    try:
        session = _session(model, options, graph, weights)
    except ModelRefusedError as error:
        raise ModelRefusedError(f"{error}{hint_about(graph)}") from error
    if original is not None:
        original.weights.let_go()
    return session


def _await(until_right: Callable[[], None]) -> None:
    try:
        until_right()
    except ModelPackageError as error:
        raise ModelRefusedError(str(error)) from error


def _open_prepared(graph: Path, settings: SessionSettings) -> Any:
    """A session of a graph that `save_prepared` wrote. Raises ModelRefusedError."""
    options = _options(settings)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimised
    try:
        weights = weights_of(graph.read_bytes(), graph.parent)
    except (GraphError, OSError, ValueError) as error:
        raise ModelRefusedError(f"the weights of {graph.name} cannot be read: {error}") from error
    fetching = threading.Thread(target=weights.fetch_packed, name="tidemill-fetch")
    fetching.start()
    try:
        return _session(graph, options, graph, weights.arrays)
    finally:
        fetching.join()


def _kernels(choice: KernelsChoice) -> Kernels | None:
    try:
        return choose_kernels(choice)
    except LookupError as error:
        raise ModelRefusedError(str(error)) from error


def _options(settings: SessionSettings) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    # It would keep one memory plan for each shape that ever ran: as many as there are lengths.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings.spinning)))
    if kernels := _kernels(settings.kernels):
        options.register_custom_ops_library(str(kernels.path))
    return options


def _session(
    graph: Path | bytes, options: ort.SessionOptions, source: Path, weights: Mapping[str, NDArray[Any]]
) -> Any:
    """A session that computes with `weights` where they are."""
    try:
        values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
        for name, value in values.items():
            options.add_initializer(name, value)
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelRefusedError(f"the graph {source.name} cannot be loaded: {sentence_of(error)}") from error
    session.weights_in_use = weights, values  # neither of which the runtime keeps
    return session


def sentence_of(error: Exception) -> str:
    """ONNX Runtime's message without its prefix, cut to a readable length."""
    return str(error).rpartition("Status Message: ")[2].replace("\n", " ")[:300]
