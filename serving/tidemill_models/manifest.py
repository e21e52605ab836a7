"""What a package's `model.toml` says, parsed strictly. The format is described in docs/model-package.md."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

from tidemill_models.errors import ModelPackageError
from tidemill_models.strict_table import StrictTable

FORMAT = 1
MANIFEST_NAME = "model.toml"

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # of a model, and of a chat template
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_INT32 = 2**31 - 1
_MAX_INT64 = 2**63 - 1
_MAX_PRICE = 10**15  # microcredits; keeps every product of a price and a count within 64 bits

EngineName = Literal["decoder", "tensor", "triton"]
_ENGINES = ("decoder", "tensor", "triton")
CacheKind = Literal["in-place", "grows"]


@dataclass(frozen=True, slots=True)
class FileDigest:
    """What a file of the package must be: its SHA-256 in hex, and its size."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """What our decoder engine needs to know; `graph` and `tokenizer` are names in `Manifest.files`."""

    graph: str
    tokenizer: str
    context_length: int  # tokens, prompt and answer together
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None = None  # put in front of a plain prompt
    shared_prefixes: bool = False  # what is computed for a prompt serves all accounts, not its own alone
    cache_tokens: int | None = None  # that one replica's KV cache may hold; None: the context length for each slot
    cache: CacheKind = "in-place"  # "grows": every run copies the whole cache, which is slow


@dataclass(frozen=True, slots=True)
class ChatSpec:
    """How messages become a prompt: `templates` maps a template's name to its file."""

    template: str  # the one that is used unless a caller names another
    roles: tuple[str, ...]
    templates: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Defaults:
    """The sampling that is used where a caller sends nothing."""

    max_tokens: int = 300
    temperature: float = 0.5
    top_p: float = 0.9
    top_k: int = 0  # 0: no limit
    min_p: float = 0.0  # 0: no limit
    repetition_penalty: float = 1.0  # 1: none
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


_STANDARD = Defaults()
_LATER_DEFAULTS = (
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)  # later than the first format


@dataclass(frozen=True, slots=True)
class Prices:
    """In microcredits; 1 credit = 1,000,000 microcredits."""

    session_per_second: int
    input_per_million_tokens: int
    output_per_million_tokens: int


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """How many replicas a model has, and when it rests."""

    min_replicas: int = 0
    max_replicas: int = 1
    target_generations_per_replica: int = 8
    idle_timeout_seconds: int = 7200
    slots: int = 8  # generations that one replica runs at once


@dataclass(frozen=True)
class Manifest:
    """A parsed model.toml. Two manifests with one digest describe models that answer alike."""

    name: str
    description: str
    license: str
    engine: EngineName
    prices: Prices
    files: Mapping[str, FileDigest]
    decoder: DecoderSpec | None = None  # there if and only if engine is "decoder"
    chat: ChatSpec | None = None  # None: the model takes prompts only
    defaults: Defaults = field(default_factory=Defaults)
    scaling: ScalingPolicy = field(default_factory=ScalingPolicy)

    @classmethod
    def from_toml(cls, text: str, *, path: str = MANIFEST_NAME) -> "Manifest":
        """Parse model.toml; `path` only names it in errors. Raises ModelPackageError."""
        try:
            value = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: also of a number with too many digits
            raise ModelPackageError(f"is not valid TOML: {error}", path=path) from error
        return _manifest(StrictTable(value, path=path))

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse what `to_json` wrote, as strictly as model.toml. Raises ModelPackageError."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelPackageError(f"is not valid JSON: {error}", path="manifest") from error
        return _manifest(StrictTable(value, path="manifest"))

    def to_json(self) -> str:
        """The canonical JSON: defaults written out, keys sorted, no spaces, no key for what is not there."""
        tables = {key: value for key, value in asdict(self).items() if value is not None}
        if self.decoder is not None:  # what is absent in model.toml is absent here
            for key in ("bos_token_id", "shared_prefixes", "cache_tokens"):
                if (value := getattr(self.decoder, key)) is None or value is False:
                    del tables["decoder"][key]
            if self.decoder.cache == "in-place":
                del tables["decoder"]["cache"]
        for name in _LATER_DEFAULTS:  # so that a package which does not set them keeps the digest that it had
            if getattr(self.defaults, name) == getattr(_STANDARD, name):
                del tables["defaults"][name]
        return json.dumps({"format": FORMAT, **tables}, ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    @cached_property
    def digest(self) -> str:
        """The model digest: SHA-256 of the canonical JSON, 64 hex digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _manifest(table: StrictTable) -> Manifest:
    table.integer("format", least=FORMAT, most=FORMAT)
    engine = table.string("engine")
    if engine not in _ENGINES:
        raise table.error("engine", f"must be one of {', '.join(_ENGINES)}, not {engine[:64]!r}")
    files = _files(table.table("files"))
    manifest = Manifest(
        name=_name(table),
        description=table.string("description", max_length=1000),
        license=table.string("license"),
        engine=cast("EngineName", engine),
        prices=_prices(table.table("prices")),
        files=files,
        decoder=_decoder(table.table("decoder"), files) if engine == "decoder" else None,
        chat=_chat(table.table("chat"), files) if "chat" in table else None,
        defaults=_defaults(table.table("defaults", optional=True)),
        scaling=_scaling(table.table("scaling", optional=True)),
    )
    table.end()
    return manifest


def _name(table: StrictTable) -> str:
    name = table.string("name")
    if not NAME.fullmatch(name):
        raise table.error("name", f"must match {NAME.pattern}, not {name[:80]!r}")
    return name


def _files(table: StrictTable) -> Mapping[str, FileDigest]:
    files: dict[str, FileDigest] = {}
    for name in table.names():
        if sentence := _wrong_file_name(name):
            raise table.error(name[:255], sentence)
        entry = table.table(name)
        sha256 = entry.string("sha256")
        if not _SHA256.fullmatch(sha256):
            raise entry.error("sha256", "must be 64 hex digits in lower case")
        files[name] = FileDigest(sha256=sha256, bytes=entry.integer("bytes", least=0, most=_MAX_INT64))
        entry.end()
    return files


def _wrong_file_name(name: str) -> str:
    """Why `name` cannot be a file of a package; empty where it can."""
    if name == MANIFEST_NAME:
        return "is the manifest itself and cannot hold its own digest"
    if not 1 <= len(name.encode(errors="replace")) <= 255 or not name.isprintable() or "\\" in name:
        return "must be 1 to 255 printable bytes without a backslash"
    if name.startswith("/"):
        return "must not be an absolute path"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "must not have empty parts, '.' or '..' in its path"
    return ""


def _file_reference(table: StrictTable, key: str, files: Mapping[str, FileDigest]) -> str:
    name = table.string(key)
    if name not in files:
        raise table.error(key, f"names {name!r}, which [files] does not hold")
    return name


def _decoder(table: StrictTable, files: Mapping[str, FileDigest]) -> DecoderSpec:
    context_length = table.integer("context_length", least=2, most=2**24)
    decoder = DecoderSpec(
        graph=_file_reference(table, "graph", files),
        tokenizer=_file_reference(table, "tokenizer", files),
        context_length=context_length,
        eos_token_ids=table.items("eos_token_ids", _token_id, "a token id"),
        bos_token_id=table.optional_integer("bos_token_id", least=0, most=_MAX_INT32),
        shared_prefixes=table.flag("shared_prefixes"),
        cache_tokens=table.optional_integer("cache_tokens", least=context_length, most=2**40),
        cache=_cache(table),
    )
    table.end()
    return decoder


def _cache(table: StrictTable) -> CacheKind:
    cache = table.string("cache") if "cache" in table else "in-place"
    if cache not in ("in-place", "grows"):
        raise table.error("cache", f"must be in-place or grows, not {cache[:64]!r}")
    return cast("CacheKind", cache)


def _token_id(value: Any) -> int | None:
    is_id = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_INT32
    return value if is_id else None


def _chat(table: StrictTable, files: Mapping[str, FileDigest]) -> ChatSpec:
    names = table.table("templates")
    templates: dict[str, str] = {}
    for name in names.names():
        if not NAME.fullmatch(name):
            raise names.error(name[:80], f"a template's name must match {NAME.pattern}")
        templates[name] = _file_reference(names, name, files)
    template = table.string("template")
    if template not in templates:
        raise table.error("template", f"names {template!r}, which [chat.templates] does not hold")
    chat = ChatSpec(template=template, roles=table.items("roles", _role, f"{_ROLE.pattern}"), templates=templates)
    table.end()
    return chat


def _role(value: Any) -> str | None:
    return value if isinstance(value, str) and _ROLE.fullmatch(value) else None


def _defaults(table: StrictTable) -> Defaults:
    standard = _STANDARD
    defaults = Defaults(
        max_tokens=table.integer("max_tokens", least=1, most=2**24, default=standard.max_tokens),
        temperature=table.number("temperature", least=0, most=2, default=standard.temperature),
        top_p=table.number("top_p", least=0, most=1, default=standard.top_p),
        top_k=table.integer("top_k", least=0, most=_MAX_INT32, default=standard.top_k),
        min_p=table.number("min_p", least=0, most=1, default=standard.min_p),
        repetition_penalty=table.number("repetition_penalty", least=0.1, most=10, default=standard.repetition_penalty),
        presence_penalty=table.number("presence_penalty", least=-2, most=2, default=standard.presence_penalty),
        frequency_penalty=table.number("frequency_penalty", least=-2, most=2, default=standard.frequency_penalty),
    )
    if defaults.top_p == 0:
        raise table.error("top_p", "must be above 0")
    table.end()
    return defaults


def _prices(table: StrictTable) -> Prices:
    prices = Prices(
        session_per_second=table.integer("session_per_second", least=0, most=_MAX_PRICE),
        input_per_million_tokens=table.integer("input_per_million_tokens", least=0, most=_MAX_PRICE),
        output_per_million_tokens=table.integer("output_per_million_tokens", least=0, most=_MAX_PRICE),
    )
    table.end()
    return prices


def _scaling(table: StrictTable) -> ScalingPolicy:
    standard = ScalingPolicy()
    max_replicas = table.integer("max_replicas", least=1, most=1000, default=standard.max_replicas)
    policy = ScalingPolicy(
        min_replicas=table.integer("min_replicas", least=0, most=max_replicas, default=standard.min_replicas),
        max_replicas=max_replicas,
        target_generations_per_replica=table.integer(
            "target_generations_per_replica", least=1, most=1024, default=standard.target_generations_per_replica
        ),
        idle_timeout_seconds=table.integer(
            "idle_timeout_seconds", least=1, most=366 * 86400, default=standard.idle_timeout_seconds
        ),
        slots=table.integer("slots", least=1, most=1024, default=standard.slots),
    )
    table.end()
    return policy
