"""Which of a folder's files make a model: the graph that is served, or a checkpoint that becomes one. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tidemill_models.errors import ConversionNeededError, ModelImportError, VariantNeededError

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_PARTS = ("encoder", "embed_tokens", "vision", "audio", "vocos", "decoder_model.onnx")  # in names of no whole decoder


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A graph by its file, and what a person calls it."""

    file: str
    variant: str


def choose_graph(files: Mapping[str, int], variant: str | None, *, title: str) -> GraphFile:
    """The graph to serve.

    Raises VariantNeededError where there are several, ConversionNeededError where there is a checkpoint alone, and
    ModelImportError.
    """
    graphs = _graphs(files)
    if not graphs:
        raise _nothing_to_serve(files, title)
    if variant is not None:
        graphs = [graph for graph in graphs if variant in (graph.variant, graph.file, PurePosixPath(graph.file).stem)]
    if len(graphs) == 1:
        return graphs[0]
    variants = {graph.variant: _size(files, graph.file) for graph in graphs or _graphs(files)}
    listed = ", ".join(f"{name} ({size / 1e6:,.1f} MB)" for name, size in variants.items())
    if graphs or variant is None:
        raise VariantNeededError(f"{title} has several graphs: {listed}. Name one with --variant.", variants)
    raise VariantNeededError(f"{title} has no graph {variant[:80]!r}; it has {listed}.", variants)


def files_of_graph(files: Mapping[str, int], graph: str) -> list[str]:
    """The graph's file and those whose names say that they hold its weights."""
    stem = graph.removesuffix(".onnx")
    endings = (".onnx", ".onnx.data", ".onnx_data", ".data")
    return [name for name in files if name.startswith(stem) and name[len(stem) :].startswith(endings)]


def beside_or_above(files: Iterable[str], graph: str, name: str) -> str | None:
    """The file of that name beside the graph, else in the nearest folder above."""
    names = set(files)
    folders = PurePosixPath(graph).parents
    return next((found for folder in folders if (found := str(folder / name)) in names), None)


def checkpoint_files(files: Iterable[str]) -> list[str]:
    """What the builder needs of a checkpoint: weights without pickles, configuration, tokenizer. No code."""
    return [
        name
        for name in files
        if "/" not in name and (name.endswith((".safetensors", ".json", ".jinja")) or name == "tokenizer.model")
    ]


def _graphs(files: Mapping[str, int]) -> list[GraphFile]:
    graphs = [name for name in files if name.endswith(".onnx")]
    whole = [name for name in graphs if not any(part in PurePosixPath(name).name for part in _PARTS)]
    merged = [name for name in whole if "decoder_model_merged" in name]
    if merged:  # the others of an older layout hold half of it each
        whole = [name for name in whole if "decoder_with_past" not in name]
    return [GraphFile(name, _variant(name)) for name in sorted(whole or graphs)]


def _variant(file: str) -> str:
    """`q4` for onnx/model_q4.onnx, `fp32` for onnx/model.onnx, `cpu-int4` for cpu-int4/model.onnx."""
    path = PurePosixPath(file)
    stem = path.stem.removeprefix("decoder_").removeprefix("model").lstrip("_-.")
    folder = path.parent.name if path.parent.name not in ("", "onnx") else ""
    return "/".join(part for part in (folder, stem) if part) or "fp32"


def _size(files: Mapping[str, int], graph: str) -> int:
    return sum(files[name] for name in files_of_graph(files, graph))


def _nothing_to_serve(files: Mapping[str, int], title: str) -> ModelImportError:
    if any(name.endswith(".safetensors") and "/" not in name for name in files):
        return ConversionNeededError(f"{title} is a checkpoint: add --convert to make a graph of it.")
    if any(name.endswith(".gguf") for name in files):
        return ModelImportError(
            f"{title} holds GGUF files, which are not served: name the checkpoint they were made of."
        )
    if any(name.endswith(_PICKLES) for name in files):
        return ModelImportError(
            f"{title} holds its weights as pickles, which may run code when they are read: convert them to safetensors "
            "where you trust them, and import that."
        )
    return ModelImportError(f"{title} holds no ONNX graph and no checkpoint in safetensors.")
