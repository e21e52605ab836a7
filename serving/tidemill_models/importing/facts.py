"""What a model's own files say of it: how long its context is, which tokens end an answer, how a chat is written."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers

from tidemill_models.errors import ModelImportError, ModelPackageError
from tidemill_models.package import read_text

_MAX_JSON_BYTES = 64 << 20
_FRONT_MATTER_LICENSE = re.compile(r"\A---\n(?:.*\n)*?license:[ \t]*['\"]?([\w.+-]{1,80})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """None and empty where nothing is said."""

    architecture: str
    context_length: int | None  # what the weights were made for
    window: int | None  # tokens that a layer sees, where not all
    head_size: int | None
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    templates: Mapping[str, str] = field(default_factory=dict)  # by name; `default` first where there is one
    license: str = ""


def read_facts(files: Mapping[str, Path]) -> ModelFacts:
    """From config.json, generation_config.json, genai_config.json, tokenizer_config.json, chat_template.jinja,
    README.md, each by its name where it is there. Raises ModelImportError.
    """
    config = _read_json(files.get("config.json"))
    config = config.get("text_config", config) if isinstance(config.get("text_config"), dict) else config
    generation, genai = _read_json(files.get("generation_config.json")), _genai(files.get("genai_config.json"))
    tokenizer_config = _read_json(files.get("tokenizer_config.json"))
    eos = _first(generation.get("eos_token_id"), config.get("eos_token_id"), genai.get("eos_token_id"))
    bos = _first(generation.get("bos_token_id"), config.get("bos_token_id"), genai.get("bos_token_id"))
    eos_ids = [token for token in (eos if isinstance(eos, list) else [eos]) if _is_id(token)]
    if _is_id(named := _token_id(files["tokenizer.json"], tokenizer_config.get("eos_token"))):
        eos_ids.append(named)
    return ModelFacts(
        architecture=str(_first(config.get("model_type"), genai.get("type"), "decoder"))[:64],
        context_length=_context_length(config, genai),
        window=_window(config),
        head_size=_head_size(config, genai),
        eos_token_ids=tuple(dict.fromkeys(eos_ids)),
        bos_token_id=bos if _is_id(bos) and _begins_with(files["tokenizer.json"], bos, tokenizer_config) else None,
        templates=_templates(tokenizer_config, files.get("chat_template.jinja"), files.get("chat_template.json")),
        license=_license(files.get("README.md")),
    )


def _read_json(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        value = json.loads(read_text(path, _MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise ModelImportError(f"{path} is not JSON: {error}.") from error
    except ModelPackageError as error:
        raise ModelImportError(f"{error}.") from error
    if not isinstance(value, dict):
        raise ModelImportError(f"{path} is not a JSON object.")
    return value


def _genai(path: Path | None) -> dict[str, Any]:
    """The `model` of a genai_config.json, with its decoder's entries."""
    model = _read_json(path).get("model")
    if not isinstance(model, dict):
        return {}
    decoder = model.get("decoder")
    return (decoder if isinstance(decoder, dict) else {}) | model


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_count(value: Any) -> bool:
    return _is_id(value) and value > 0


def _context_length(config: Mapping[str, Any], genai: Mapping[str, Any]) -> int | None:
    keys = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length")
    lengths = [config[key] for key in keys if _is_count(config.get(key))][:1]
    if _is_count(genai.get("context_length")):
        lengths.append(genai["context_length"])
    # A model with a short and a long set of angles takes one for a whole run, by its longest row: then a long
    # neighbour would change a short answer. Within the short set's reach there is but one.
    scaling = _first(config.get("rope_parameters"), config.get("rope_scaling"))
    if isinstance(scaling, dict) and "longrope" in (scaling.get("rope_type"), scaling.get("type")):
        original = _first(
            config.get("original_max_position_embeddings"), scaling.get("original_max_position_embeddings")
        )
        lengths += [original] if _is_count(original) else []
    return min(lengths, default=None)


def _window(config: Mapping[str, Any]) -> int | None:
    window = config.get("sliding_window")
    return window if _is_count(window) and config.get("use_sliding_window", True) else None


def _head_size(config: Mapping[str, Any], genai: Mapping[str, Any]) -> int | None:
    size = _first(config.get("head_dim"), genai.get("head_size"))
    if _is_count(size):
        return int(size)
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    return hidden // heads if _is_count(hidden) and _is_count(heads) else None  # type: ignore[operator]


def _token_id(tokenizer: Path, token: Any) -> int | None:
    text = token.get("content") if isinstance(token, dict) else token
    return _open_tokenizer(tokenizer).token_to_id(text) if isinstance(text, str) else None


def _begins_with(tokenizer: Path, bos: int, tokenizer_config: Mapping[str, Any]) -> bool:
    """Whether this tokenizer puts the begin token in front of a text."""
    if isinstance(wanted := tokenizer_config.get("add_bos_token"), bool):
        return wanted
    return _open_tokenizer(tokenizer).encode("a").ids[:1] == [bos]


def _open_tokenizer(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise ModelImportError(f"{path} is not a tokenizer: {str(error)[:200]}.") from error


def _templates(tokenizer_config: Mapping[str, Any], jinja: Path | None, in_json: Path | None) -> dict[str, str]:
    if jinja is not None:
        try:
            return {"default": read_text(jinja, _MAX_JSON_BYTES)}
        except ModelPackageError as error:
            raise ModelImportError(f"{error}.") from error
    found = _first(_read_json(in_json).get("chat_template"), tokenizer_config.get("chat_template"))
    if isinstance(found, str):
        return {"default": found}
    if not isinstance(found, list):
        return {}
    named = {str(each.get("name")): each.get("template") for each in found if isinstance(each, dict)}
    texts = {name: text for name, text in named.items() if isinstance(text, str)}
    return dict(sorted(texts.items(), key=lambda each: each[0] != "default"))


def _license(readme: Path | None) -> str:
    """What the front matter of a model card says."""
    if readme is None:
        return ""
    with readme.open("rb") as file:
        match = _FRONT_MATTER_LICENSE.match(file.read(65536).decode(errors="replace"))
    return match[1] if match else ""
