"""Writes small packages for the tests: a graph made of bytes, a tokenizer trained here, a chat template."""

from pathlib import Path

from tidemill_models.digests import digest_files

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
HEAD = """\
format = 1
name = "tiny"
description = "A package for a test."
license = "Apache-2.0"
engine = "decoder"

[decoder]
graph = "model.onnx"
tokenizer = "tokenizer.json"
context_length = 64
eos_token_ids = [1]
bos_token_id = 0

[chat]
template = "default"
roles = ["system", "user", "assistant"]

[chat.templates]
default = "chat.jinja"

[prices]
session_per_second = 10_000
input_per_million_tokens = 5_000_000
output_per_million_tokens = 15_000_000

[files]
"""


def write_package(folder: Path, graph: bytes, tokenizer: str, template: str = TEMPLATE) -> Path:
    """A package that is right wherever its parts are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(graph)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    (folder / "chat.jinja").write_text(template, encoding="utf-8")
    write_manifest(folder)
    return folder


def write_manifest(folder: Path, head: str = HEAD) -> None:
    """model.toml with the digests of what now lies in the folder."""
    lines = [
        f'"{name}" = {{ sha256 = "{digest.sha256}", bytes = {digest.bytes} }}\n'
        for name, digest in digest_files(folder).items()
    ]
    (folder / "model.toml").write_text(head + "".join(lines), encoding="utf-8")
