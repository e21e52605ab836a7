"""Makes a model package of a source's files: chooses, copies, writes the manifest, checks, and puts it in place."""

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tidemill_models.check import check_package
from tidemill_models.errors import ModelImportError, ModelPackageError
from tidemill_models.graph import GraphSignature, read_graph
from tidemill_models.importing.chats import Chat, try_templates
from tidemill_models.importing.facts import ModelFacts, read_facts
from tidemill_models.importing.layout import beside_or_above, choose_graph, files_of_graph
from tidemill_models.importing.manifest_text import manifest_text
from tidemill_models.importing.source import Source
from tidemill_models.importing.staging import check_space, put_in_place, staging_folder
from tidemill_models.manifest_tables import MANIFEST_NAME
from tidemill_models.package import ModelPackage
from tidemill_models.package_specs import DecoderSpec, FileDigest
from tidemill_models.template_renderer import TemplateRenderer
from tidemill_models.tokenizer import Tokenizer

USUAL_CONTEXT_LENGTH = 8192  # tokens; many models could take more than a machine has memory for
_FACT_FILES = (
    "config.json", "generation_config.json", "genai_config.json", "tokenizer_config.json", "tokenizer.json",
    "chat_template.jinja", "chat_template.json", "README.md",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wishes:
    """What whoever imports may say; None leaves it to the model's files."""

    name: str
    variant: str | None = None
    context_length: int | None = None
    may_replace: bool = False


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A package that is in place, and what was found on the way."""

    package: ModelPackage
    graph: GraphSignature
    facts: ModelFacts
    left_out: Sequence[str]

    @property
    def bytes_per_slot(self) -> int | None:
        """Memory that a slot's cache takes when its context is full."""
        head_size = self.graph.head_size or self.facts.head_size
        first = self.graph.inputs["past_key_values.0.key"]
        if head_size is None or self.graph.num_kv_heads is None:
            return None
        num_numbers = 2 * self.graph.num_layers * self.graph.num_kv_heads * head_size
        return num_numbers * (4 if first.dtype == "float32" else 2) * self.package.decoder.context_length


def import_model(
    source: Source, models_folder: Path, wishes: Wishes, *, origin: str, try_out: Callable[[Path], None]
) -> ImportedModel:
    """Make the package `models_folder`/NAME; nothing is left there unless it is whole.

    `origin` is what its description says it was imported from; `try_out` runs the checked package and raises
    ModelImportError where it does not answer. Raises that and ModelPackageError.
    """
    target = models_folder / wishes.name
    if target.exists() and not wishes.may_replace:
        raise ModelImportError(f"{target} is there already: give another --name, or --replace.")
    graph_file = choose_graph(source.files, wishes.variant, title=source.title).file
    with staging_folder(models_folder.parent / "importing") as staging:
        check_space(staging, sum(source.files[name] for name in files_of_graph(source.files, graph_file)))
        package = staging / "package"
        package.mkdir()
        try:
            imported = _Import(source, graph_file, package, wishes).run(origin)
        except ModelPackageError as error:
            raise _told_of_the_source(error, package, source) from error
        try_out(package)
        put_in_place(package, target, staging / "before")
    path = models_folder / wishes.name
    return ImportedModel(check_package(path, deep=False), imported.graph, imported.facts, imported.left_out)


def _told_of_the_source(error: ModelPackageError, package: Path, source: Source) -> ModelPackageError:
    """The same complaint about the file as its owner knows it, and not about a copy that is gone."""
    if not Path(error.path).is_relative_to(package):
        return error
    name = Path(error.path).relative_to(package).as_posix()
    return ModelPackageError(error.sentence, path=f"{source.title}: {name}", key=error.key)


@dataclass(frozen=True, slots=True)
class _Made:
    graph: GraphSignature
    facts: ModelFacts
    left_out: Sequence[str]


class _Import:
    """One import, into a folder of its own."""

    def __init__(self, source: Source, graph_file: str, folder: Path, wishes: Wishes) -> None:
        self._source = source
        self._graph_file = graph_file
        self._folder = folder
        self._wishes = wishes
        self._digests: dict[str, FileDigest] = {}

    def run(self, origin: str) -> _Made:
        names = {name: beside_or_above(self._source.files, self._graph_file, name) for name in _FACT_FILES}
        if names["tokenizer.json"] is None:
            raise ModelImportError(
                f"{self._source.title} has no tokenizer.json: make one with transformers, "
                "`AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`."
            )
        paths = {name: self._source.fetch(found) for name, found in names.items() if found is not None}
        facts = read_facts(paths)
        graph = self._take_graph()
        self._take(paths["tokenizer.json"], "tokenizer.json")
        tokenizer = Tokenizer.from_file(self._folder / "tokenizer.json")
        decoder = self._decoder(graph, facts, tokenizer)
        with TemplateRenderer(num_processes=1) as renderer:
            chat = self._take_chat(facts, tokenizer, decoder, renderer)
            self._write_manifest(facts, graph, decoder, chat, origin)
            check_package(self._folder, renderer=renderer)
        return _Made(graph, facts, chat.left_out)

    def _write_manifest(
        self, facts: ModelFacts, graph: GraphSignature, decoder: DecoderSpec, chat: Chat, origin: str
    ) -> None:
        precision = precision_of(graph)
        text = manifest_text(
            name=self._wishes.name,
            description=_description(facts, precision, decoder, origin),
            license_name=facts.license or "unknown",
            decoder=decoder,
            chat=chat,
            files=self._digests,
        )
        (self._folder / MANIFEST_NAME).write_text(text, encoding="utf-8")

    def _take_graph(self) -> GraphSignature:
        """Copy the graph and the files that it keeps its weights in."""
        graph_name = PurePosixPath(self._graph_file).name
        signature = read_graph(self._take(self._source.fetch(self._graph_file), graph_name))
        beside = PurePosixPath(self._graph_file).parent
        for location in sorted(signature.external_files):
            name = (beside / location).as_posix()
            if name not in self._source.files or ".." in PurePosixPath(location).parts:
                raise ModelImportError(
                    f"{self._graph_file} keeps weights in {location[:255]!r}, which is not beside it."
                )
            self._take(self._source.fetch(name), location)
        return signature

    def _take(self, path: Path, name: str) -> Path:
        """Copy a file into the package, or link to it where someone else keeps it as it is."""
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not self._source.is_shared or not _linked(path, target):
            shutil.copyfile(path, target)
        self._enter(target)
        return target

    def _enter(self, path: Path) -> None:
        """Note the digest of a file that is in the package."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        name = path.relative_to(self._folder).as_posix()
        self._digests[name] = FileDigest(sha256=sha256, bytes=path.stat().st_size)

    def _take_chat(
        self, facts: ModelFacts, tokenizer: Tokenizer, decoder: DecoderSpec, renderer: TemplateRenderer
    ) -> Chat:
        bos = "" if decoder.bos_token_id is None else tokenizer.token_text(decoder.bos_token_id) or ""
        eos = tokenizer.token_text(decoder.eos_token_ids[0]) or ""
        chat = try_templates(facts.templates, tokenizer, bos, eos, renderer)
        for name, text in chat.templates.items():
            path = self._folder / _template_file(name)
            path.write_text(text, encoding="utf-8")
            self._enter(path)
        return chat

    def _decoder(self, graph: GraphSignature, facts: ModelFacts, tokenizer: Tokenizer) -> DecoderSpec:
        eos = tuple(token for token in facts.eos_token_ids if tokenizer.token_text(token) is not None)
        if not eos and MANIFEST_NAME in self._source.files:
            raise ModelImportError(
                f"{self._source.title} is a model package already: it needs no import. Name it to `tidemill serve "
                "--models`, or put it into models/ of the data directory."
            )
        if not eos:
            raise ModelImportError(
                f"{self._source.title} does not say which token ends an answer: put `eos_token_id` into its "
                "generation_config.json."
            )
        bos = facts.bos_token_id
        return DecoderSpec(
            graph=PurePosixPath(self._graph_file).name,
            tokenizer="tokenizer.json",
            context_length=self._context_length(graph, facts),
            eos_token_ids=eos,
            bos_token_id=bos if bos is not None and tokenizer.token_text(bos) is not None else None,
            cache="in-place" if graph.has_gqa else "grows",
        )

    def _context_length(self, graph: GraphSignature, facts: ModelFacts) -> int:
        """What was asked for, else the usual, within what the model can take."""
        longest = longest_context(graph, facts)
        wished = self._wishes.context_length
        if wished is None and longest is None:
            raise ModelImportError(f"{self._source.title} does not say how long its context is: add --context-length.")
        if wished is not None and longest is not None and wished > longest:
            raise ModelImportError(f"The context can be {longest} tokens at most, not {wished}.")
        return wished or min(longest or USUAL_CONTEXT_LENGTH, USUAL_CONTEXT_LENGTH)


def _linked(path: Path, target: Path) -> bool:
    try:
        os.link(path, target)
    except OSError:  # another file system, or one without links
        return False
    return True


def longest_context(graph: GraphSignature, facts: ModelFacts) -> int | None:
    """The most tokens that the model answers rightly with; None where nothing says it.

    Where layers see only a window and the graph does not know of it, nothing beyond the window is right.
    """
    window = None if graph.has_windows else facts.window
    return min((each for each in (facts.context_length, graph.num_positions, window) if each is not None), default=None)


def precision_of(graph: GraphSignature) -> str:
    """What the weights are, as far as the operators tell."""
    if "com.microsoft::MatMulNBits" in graph.op_types:
        return "weights of 4 or 8 bits in blocks"
    if any("DynamicQuantize" in op_type for op_type in graph.op_types):
        return "int8 scaled at each run"
    first = graph.inputs.get("past_key_values.0.key")
    return first.dtype if first is not None else "float32"


def _description(facts: ModelFacts, precision: str, decoder: DecoderSpec, origin: str) -> str:
    slow = "; slow: its export copies the whole cache for each token" if decoder.cache == "grows" else ""
    return f"{facts.architecture}, {precision}, imported from {origin}{slow}."[:1000]


def _template_file(name: str) -> str:
    return "chat.jinja" if name == "default" else f"chat-{name}.jinja"
