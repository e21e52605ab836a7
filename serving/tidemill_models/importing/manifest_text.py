"""Writes a model.toml."""

import json
from collections.abc import Mapping

from tidemill_models.importing.chats import Chat
from tidemill_models.manifest import FORMAT
from tidemill_models.package_specs import DecoderSpec, FileDigest

_PRICES = """\
[prices]  # microcredits; `tidemill prices set` changes what is asked
session_per_second = 10_000
input_per_million_tokens = 5_000_000
output_per_million_tokens = 15_000_000
"""


def manifest_text(
    *,
    name: str,
    description: str,
    license_name: str,
    decoder: DecoderSpec,
    chat: Chat,
    files: Mapping[str, FileDigest],
) -> str:
    """The manifest of a decoder, with the prices of the demo model."""
    head = {"format": FORMAT, "name": name, "description": description, "license": license_name, "engine": "decoder"}
    parts = [_table("", head), _table("[decoder]", _decoder(decoder))]
    if chat.templates:
        default = next(iter(chat.templates))
        parts.append(_table("[chat]", {"template": default, "roles": list(chat.roles)}))
        named = {each: "chat.jinja" if each == "default" else f"chat-{each}.jinja" for each in chat.templates}
        parts.append(_table("[chat.templates]", named))
    parts.append(_PRICES)
    lines = [f"{_text(file)} = {{ sha256 = {_text(it.sha256)}, bytes = {it.bytes} }}\n" for file, it in files.items()]
    return "\n".join([*parts, "[files]\n" + "".join(lines)])


def _decoder(decoder: DecoderSpec) -> dict[str, object]:
    entries: dict[str, object] = {
        "graph": decoder.graph,
        "tokenizer": decoder.tokenizer,
        "context_length": decoder.context_length,
        "eos_token_ids": list(decoder.eos_token_ids),
    }
    if decoder.bos_token_id is not None:
        entries["bos_token_id"] = decoder.bos_token_id
    if decoder.cache == "grows":
        entries["cache"] = decoder.cache
    return entries


def _table(title: str, entries: Mapping[str, object]) -> str:
    lines = [f"{key if key.isidentifier() else _text(key)} = {_value(value)}\n" for key, value in entries.items()]
    return (f"{title}\n" if title else "") + "".join(lines)


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return _text(value) if isinstance(value, str) else str(value)


def _text(value: str) -> str:
    """JSON's strings are TOML's, but for DEL, and for surrogates, which no UTF-8 file holds."""
    return json.dumps(value.encode(errors="replace").decode(), ensure_ascii=False).replace("\x7f", "\\u007F")
