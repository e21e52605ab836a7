"""Says what an import found: in sentences for a person, as facts for a program."""

from collections.abc import Mapping
from dataclasses import dataclass

from tidemill_models.importing.package_maker import ImportedModel, longest_context, precision_of

BETTER_EXPORT = (
    "Better: import the checkpoint with --convert, or export it with `python -m onnxruntime_genai.models.builder`."
)


@dataclass(frozen=True, slots=True)
class Report:
    """The same twice."""

    sentences: tuple[str, ...]
    facts: Mapping[str, object]


def report(imported: ImportedModel, trial: Mapping[str, float]) -> Report:
    """`trial`: load_seconds and tokens_per_second, empty where there was none."""
    manifest, decoder, graph = imported.package.manifest, imported.package.decoder, imported.graph
    precision, slots = precision_of(graph), manifest.scaling.slots
    weights = sum(file.bytes for file in manifest.files.values())
    per_slot, longest = imported.bytes_per_slot, longest_context(graph, imported.facts)
    chat = manifest.chat
    sentences = [
        f"{manifest.name}: {imported.facts.architecture}, {graph.num_layers} layers, {precision}, {_size(weights)}.",
        "It appends to its KV cache in place."
        if decoder.cache == "in-place"
        else f"It is slow: its export copies the whole KV cache for each token. {BETTER_EXPORT}",
        _context_sentence(decoder.context_length, longest),
    ]
    if per_slot is not None:
        sentences.append(
            f"A full slot takes {_size(per_slot)} of memory; {slots} slots take {_size(slots * per_slot)}."
        )
    if chat is None:
        sentences.append("It takes prompts only, no chats.")
    else:
        sentences.append(f"Its chat templates: {', '.join(chat.templates)}; roles: {', '.join(chat.roles)}.")
    sentences += [f"{text[:1].upper()}{text[1:]}." for text in imported.left_out]
    if trial:
        speed = f"{trial['tokens_per_second']:,.0f} tokens a second"
        sentences.append(f"A trial loaded it in {trial['load_seconds']:.1f} s and made {speed}, alone.")
    sentences.append(f"It is in {imported.package.folder}: `tidemill serve` takes it up when it starts next.")
    facts = {
        "name": manifest.name,
        "folder": str(imported.package.folder),
        "digest": imported.package.digest,
        "architecture": imported.facts.architecture,
        "precision": precision,
        "cache": decoder.cache,
        "context_length": decoder.context_length,
        "longest_context_length": longest,
        "bytes": weights,
        "bytes_per_slot": per_slot,
        "slots": slots,
        "eos_token_ids": list(decoder.eos_token_ids),
        "bos_token_id": decoder.bos_token_id,
        "chat_templates": list(chat.templates) if chat else [],
        "roles": list(chat.roles) if chat else [],
        "left_out": list(imported.left_out),
        **trial,
    }
    return Report(tuple(sentences), facts)


def _context_sentence(taken: int, longest: int | None) -> str:
    if longest is None or longest == taken:
        return f"Its context is {taken:,} tokens."
    return f"Its context is {taken:,} tokens of the {longest:,} that it can: --context-length changes it."


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"
