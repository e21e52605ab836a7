"""Makes a graph of a checkpoint with the standard builder, in a process of its own; needs the extra `convert`.

The builder is handed a folder with the weights in safetensors, the configuration and the tokenizer, and nothing else:
no pickle is read and no code of the checkpoint's runs.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tidemill_models.errors import ModelImportError
from tidemill_models.importing.layout import checkpoint_files
from tidemill_models.importing.source import FolderSource, Source
from tidemill_models.importing.staging import check_space

PRECISIONS = {
    "fp32": ("fp32", "cpu", []),
    "fp16": ("fp16", "cuda", []),  # the builder's fp16 for `cpu` has no GroupQueryAttention; this one runs there too
    "bf16": ("bf16", "cuda", []),  # runs on a GPU only
    "int8": ("int8", "cpu", ["block_size=32", "accuracy_level=4", "is_symmetric=true"]),
    "int4": ("int4", "cpu", ["block_size=32", "accuracy_level=4"]),
    "int4-fp16": ("int4", "cuda", ["block_size=32"]),  # its cache is in float16, as a GPU needs it
}
_NEEDED = ("onnxruntime_genai", "torch", "transformers", "onnx_ir")
_OTHER_WAY = (
    "Optimum may (`pip install optimum-onnx` into an environment of its own, then `optimum-cli export onnx --task "
    "text-generation-with-past --model CHECKPOINT FOLDER`); such a graph is served slowly."
)
_KEPT_LINES = 3  # of the builder's complaint


def require_builder() -> None:
    """Raises ModelImportError with what to install where the builder is not."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ModelImportError(
            f"A graph is made of a checkpoint by packages that are not installed ({', '.join(missing)}): run "
            "`pip install 'tidemill[convert]'`."
        )


def convert(source: Source, precision: str, scratch: Path) -> FolderSource:
    """Run the builder on a checkpoint in the folder `scratch`; returns what it made. Raises ModelImportError."""
    require_builder()
    names = checkpoint_files(source.files)
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise ModelImportError(f"{source.title} is no checkpoint: it lacks config.json or weights in safetensors.")
    check_space(scratch, 3 * sum(source.files[name] for name in names))  # bfloat16 may become float32, and one file
    checkpoint, made = scratch / "checkpoint", scratch / "made"
    checkpoint.mkdir()
    for name in names:
        (checkpoint / name).symlink_to(source.fetch(name))
    built, device, options = PRECISIONS[precision]
    line = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(checkpoint), "-o", str(made)]
    line += ["-p", built, "-e", device, "-c", str(scratch / "cache")]
    line += ["--extra_options", "hf_remote=false", "hf_token=false", *options]
    done = subprocess.run(line, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode != 0:
        lines = [each for each in (done.stderr or done.stdout).splitlines() if each.strip()]
        why = " ".join(lines[-_KEPT_LINES:])[:600] if lines else f"it ended with {done.returncode}"
        raise ModelImportError(f"The builder cannot make a graph of {source.title}: {why}. {_OTHER_WAY}")
    return FolderSource(made)
