"""The model packages that the benches serve, in a folder that git ignores."""

import hashlib
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[3]
LARGE = ROOT / ".build" / "bench" / "models" / "125m" / "125m-int8-b32"  # made by `tests.bench.models`
TINY = ROOT / "tests" / "models" / "tiny-llama"

# The end token is the padding, which no answer holds: its logit is 0 or near it, and the fake device never makes it.
_MANIFEST = """\
format = 1
name = "{name}"
description = "Random weights for the benches; its answers mean nothing."
license = "Apache-2.0"
engine = "decoder"

[decoder]
graph = "model.onnx"
tokenizer = "tokenizer.json"
context_length = {context_length}
eos_token_ids = [0]

[defaults]
temperature = 0.0
top_p = 1.0

[prices]
session_per_second = 10_000
input_per_million_tokens = 5_000_000
output_per_million_tokens = 15_000_000

[scaling]
slots = {slots}

[files]
{files}"""


def write_manifest(folder: Path, *, context_length: int, slots: int) -> None:
    """Write `model.toml` for what lies in the folder."""
    lines = []
    for file in sorted(folder.iterdir()):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        lines.append(f'"{file.name}" = {{ sha256 = "{digest}", bytes = {file.stat().st_size} }}\n')
    manifest = _MANIFEST.format(name=folder.name, context_length=context_length, slots=slots, files="".join(lines))
    (folder / "model.toml").write_text(manifest)


def make_small(folder: Path) -> Path:
    """The tests' tiny model with 64 slots; for the fake device, and for a trial of the bench itself."""
    folder.mkdir(parents=True)
    for name in ("model.onnx", "tokenizer.json"):
        shutil.copy(TINY / name, folder / name)
    write_manifest(folder, context_length=1024, slots=64)
    return folder
