"""Reads the tables of a `model.toml`, each strictly: what is missing, wrong or unknown is a ModelPackageError."""

import re
from collections.abc import Mapping
from typing import Any, cast

from tidemill_models.package_specs import CacheKind, ChatSpec, DecoderSpec, Defaults, FileDigest, Prices, ScalingPolicy
from tidemill_models.strict_table import StrictTable

MANIFEST_NAME = "model.toml"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # of a model, and of a chat template
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_INT32 = 2**31 - 1
_MAX_INT64 = 2**63 - 1
_MAX_PRICE = 10**15  # microcredits; keeps every product of a price and a count within 64 bits


def read_name(table: StrictTable) -> str:
    """The package's name."""
    name = table.string("name")
    if not NAME.fullmatch(name):
        raise table.error("name", f"must match {NAME.pattern}, not {name[:80]!r}")
    return name


def read_files(table: StrictTable) -> Mapping[str, FileDigest]:
    """What `[files]` holds, by name."""
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


def read_decoder(table: StrictTable, files: Mapping[str, FileDigest]) -> DecoderSpec:
    """What `[decoder]` says; its files must be among `files`."""
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


def read_chat(table: StrictTable, files: Mapping[str, FileDigest]) -> ChatSpec:
    """What `[chat]` says; its templates must be among `files`."""
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


def read_defaults(table: StrictTable) -> Defaults:
    """What `[defaults]` says, and the usual for the rest."""
    standard = Defaults()
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


def read_prices(table: StrictTable) -> Prices:
    """What `[prices]` says."""
    prices = Prices(
        session_per_second=table.integer("session_per_second", least=0, most=_MAX_PRICE),
        input_per_million_tokens=table.integer("input_per_million_tokens", least=0, most=_MAX_PRICE),
        output_per_million_tokens=table.integer("output_per_million_tokens", least=0, most=_MAX_PRICE),
    )
    table.end()
    return prices


def read_scaling(table: StrictTable) -> ScalingPolicy:
    """What `[scaling]` says, and the usual for the rest."""
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
