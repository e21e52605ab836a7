"""Checks a model package wholly, before it is served or registered. Reads every byte of it once."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tidemill_models.decoder_graph import check_decoder_graph
from tidemill_models.errors import ModelPackageError, TokenizerError
from tidemill_models.graph import GraphSignature, read_graph
from tidemill_models.manifest_tables import MANIFEST_NAME
from tidemill_models.package import ModelPackage, load_package
from tidemill_models.package_specs import DecoderSpec, FileDigest
from tidemill_models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tidemill_models.template_renderer import TemplateRenderer

_PIECE_BYTES = 8 << 20  # that are hashed at once: between two pieces other threads may have the interpreter


def check_package(
    folder: Path, *, deep: bool = True, templates: bool = True, renderer: "TemplateRenderer | None" = None
) -> ModelPackage:
    """Open a package and refuse whatever is wrong with it.

    Always: what `load_package` checks, and that the folder holds nothing that [files] does not name. `deep`: the
    digests, the graph, the tokenizer and its tokens, and, with `templates`, one rendering of each chat template by
    `renderer` or one of its own, which costs 0.1 s to start; a replica renders none and leaves that out. Raises
    ModelPackageError.
    """
    if not deep:
        return _open(folder)
    package, graph = check_files(folder)
    if graph is not None:
        tokenizer = read_checked_tokenizer(package, graph)
        if templates and package.manifest.chat is not None:
            # Not above: a replica renders none, and this import would take a good part of its start.
            from tidemill_models.template_check import check_templates  # noqa: PLC0415

            check_templates(package, package.manifest.chat, tokenizer, renderer)
    return package


def check_files(folder: Path) -> tuple[ModelPackage, GraphSignature | None]:
    """Check every byte of a package, and its decoder's graph, which comes as well; the tokenizer is not looked into.

    Raises ModelPackageError.
    """
    package = _open(folder)
    with ThreadPoolExecutor(1, "tidemill-digests") as threads:  # beside the rest, which is Python
        digests = threads.submit(_check_digests, package)
        try:
            graph = None if package.manifest.decoder is None else _check_graph(package, package.manifest.decoder)
        except ModelPackageError:
            digests.result()  # a file that was changed says more than what is wrong in it
            raise
        digests.result()
    return package, graph


def read_checked_tokenizer(package: ModelPackage, graph: GraphSignature) -> Tokenizer:
    """The tokenizer of a decoder, where it and the manifest's tokens go with the graph. Raises ModelPackageError."""
    tokenizer = Tokenizer.from_file(package.tokenizer_path)
    _check_tokens(package, package.decoder, tokenizer, graph)
    return tokenizer


def digest_files(folder: Path) -> dict[str, FileDigest]:
    """What [files] must say of a folder: each file but model.toml, by name. For whoever writes a package."""
    return {
        name: FileDigest(sha256=_sha256(folder / name), bytes=(folder / name).stat().st_size)
        for name in _file_names(folder)
    }


def _file_names(folder: Path) -> Iterator[str]:
    """All that lies in the folder and below, sorted: files, links and whatever else is no folder."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted(files + links):
            relative = (Path(parent) / name).relative_to(folder).as_posix()
            if relative != MANIFEST_NAME:
                yield relative


def _open(folder: Path) -> ModelPackage:
    package = load_package(folder)
    for name in _file_names(package.folder):
        if name not in package.manifest.files:
            raise ModelPackageError("is not named in [files]", path=str(package.folder / name))
    return package


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        room = memoryview(bytearray(min(_PIECE_BYTES, path.stat().st_size + 1)))
        while size := file.readinto(room):
            digest.update(room[:size])
    return digest.hexdigest()


def _check_digests(package: ModelPackage) -> None:
    for name, path in package.paths.items():
        _check_digest(path, package.manifest.files[name])


def _check_digest(path: Path, expected: FileDigest) -> None:
    try:
        sha256 = _sha256(path)
    except OSError as error:
        raise ModelPackageError(f"cannot be read: {error.strerror}", path=str(path)) from error
    if sha256 != expected.sha256:
        raise ModelPackageError(f"was changed: its SHA-256 is {sha256}, not {expected.sha256}", path=str(path))


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
