"""Checks a model package wholly, before it is served or registered. Reads every byte of it once."""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tidemill_models.decoder_graph import check_decoder_graph
from tidemill_models.digests import DigestsInReading, refuse_unnamed_files
from tidemill_models.errors import ModelPackageError, TokenizerError
from tidemill_models.graph import GraphSignature, read_graph
from tidemill_models.manifest_tables import MANIFEST_NAME
from tidemill_models.package import ModelPackage, load_package
from tidemill_models.package_specs import DecoderSpec
from tidemill_models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tidemill_models.template_renderer import TemplateRenderer


def check_package(
    folder: Path, *, deep: bool = True, templates: bool = True, renderer: "TemplateRenderer | None" = None
) -> ModelPackage:
    """Open a package and refuse whatever is wrong with it.

    Always: what `load_package` checks, and that the folder holds nothing that [files] does not name. `deep`: the
    digests, the graph, the tokenizer and its tokens, and, with `templates`, one rendering of each chat template by
    `renderer` or one of its own, which costs 0.1 s to start; a replica renders none and leaves that out. Raises
    ModelPackageError.
    """
    package = load_package(folder)
    refuse_unnamed_files(package)
    if not deep:
        return package
    digests = DigestsInReading(package)  # beside the graph, which is Python
    graph = check_graph(package, digests)
    digests.until_right()
    if graph is not None:
        tokenizer = read_checked_tokenizer(package, graph)
        if templates and package.manifest.chat is not None:
            # Not above: a replica renders none, and this import would take a good part of its start.
            from tidemill_models.template_check import check_templates  # noqa: PLC0415

            check_templates(package, package.manifest.chat, tokenizer, renderer)
    return package


def check_graph(package: ModelPackage, digests: DigestsInReading) -> GraphSignature | None:
    """The graph of a package's decoder, where it can be served; None where the engine is another one.

    Raises ModelPackageError.
    """
    try:
        return None if package.manifest.decoder is None else _check_graph(package, package.manifest.decoder)
    except ModelPackageError:
        digests.until_right()  # a file that was changed says more than what is wrong in it
        raise


def read_checked_tokenizer(package: ModelPackage, graph: GraphSignature) -> Tokenizer:
    """The tokenizer of a decoder, where it and the manifest's tokens go with the graph. Raises ModelPackageError."""
    tokenizer = Tokenizer.from_file(package.tokenizer_path)
    _check_tokens(package, package.decoder, tokenizer, graph)
    return tokenizer


def _check_graph(package: ModelPackage, decoder: DecoderSpec) -> GraphSignature:
    graph = read_graph(package.graph_path)
    beside = PurePosixPath(decoder.graph).parent
    files = [str(PurePosixPath(name).relative_to(beside)) for name in package.paths if _is_below(name, beside)]
    path = str(package.graph_path)
    check_decoder_graph(graph, files=files, context_length=decoder.context_length, cache=decoder.cache, path=path)
    return graph


def _is_below(name: str, folder: PurePosixPath) -> bool:
    return PurePosixPath(name).is_relative_to(folder)


def _check_tokens(package: ModelPackage, decoder: DecoderSpec, tokenizer: Tokenizer, graph: GraphSignature) -> None:
    size = tokenizer.vocabulary_size
    if graph.vocabulary_size is not None and size > graph.vocabulary_size:
        sentence = f"has ids up to {size - 1}, and the graph's logits end at {graph.vocabulary_size - 1}"
        raise TokenizerError(sentence, path=str(package.tokenizer_path))
    named = [("decoder.eos_token_ids", token_id) for token_id in decoder.eos_token_ids]
    if decoder.bos_token_id is not None:
        named.append(("decoder.bos_token_id", decoder.bos_token_id))
    for key, token_id in named:
        if tokenizer.token_text(token_id) is None:
            sentence = f"names the token {token_id}, which the tokenizer does not have"
            raise ModelPackageError(sentence, path=str(package.folder / MANIFEST_NAME), key=key)
