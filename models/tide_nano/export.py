"""Exports a trained checkpoint as a model package: `python export.py RUN_FOLDER [PACKAGE_FOLDER]`.

The standard ONNX builder writes the decoder with GroupQueryAttention and 8-bit MatMulNBits weights in blocks of 32,
`accuracy_level` 4. The graph goes into one file with its weights; `model.toml` gets the digests of what was written.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
from bundle import PACKAGE
from tokenizer import BOS, END
from train import CONTEXT_LENGTH, HEAD_SIZE

HERE = Path(__file__).parent
MAX_PACKAGE_BYTES = 12_000_000
FILES = ("model.onnx", "tokenizer.json", "chat.jinja")
MANIFEST = f"""\
format = 1
name = "tide-nano"
description = "A small demo model that knows Tidemill, small talk, small sums and simple English; not for real work."
license = "Apache-2.0"
engine = "decoder"

[decoder]
graph = "model.onnx"
tokenizer = "tokenizer.json"
context_length = {CONTEXT_LENGTH}
eos_token_ids = [{END}]
bos_token_id = {BOS}

[chat]
template = "default"
roles = ["system", "user", "assistant"]

[chat.templates]
default = "chat.jinja"

[defaults]
max_tokens = 300
temperature = 0.2
top_p = 0.9
top_k = 0

[prices]
session_per_second = 10_000
input_per_million_tokens = 5_000_000
output_per_million_tokens = 15_000_000

[scaling]
min_replicas = 0
max_replicas = 1
target_generations_per_replica = 8
idle_timeout_seconds = 7200
slots = 8

[files]
"""


def build_graph(run: Path, target: Path) -> None:
    """Runs the builder on a training run's checkpoint and writes one self-contained ONNX file."""
    with tempfile.TemporaryDirectory() as scratch:
        # The builder wants the tokenizer beside the weights.
        checkpoint = shutil.copytree(run / "model", f"{scratch}/checkpoint")
        shutil.copy(run / "tokenizer.json", checkpoint)
        command = [
            sys.executable,
            "-m",
            "onnxruntime_genai.models.builder",
            "-i",
            str(checkpoint),
            "-o",
            f"{scratch}/onnx",
        ]
        command += ["-p", "int8", "-e", "cpu", "-c", f"{scratch}/cache"]
        command += ["--extra_options", "block_size=32", "accuracy_level=4", "is_symmetric=true"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        graph = onnx.load(f"{scratch}/onnx/model.onnx")
    check_graph(graph)
    state_head_size(graph)
    onnx.save(graph, target)


def state_head_size(graph: onnx.ModelProto) -> None:
    """Puts the head size in place of the name that the builder leaves in the cache's shapes."""
    for value in [*graph.graph.input, *graph.graph.output]:
        if value.name.startswith(("past_key_values.", "present.")):
            value.type.tensor_type.shape.dim[3].dim_value = HEAD_SIZE


def check_graph(graph: onnx.ModelProto) -> None:
    """Refuses an export that is not what the README says."""
    inputs = {value.name for value in graph.graph.input if not value.name.startswith("past_key_values.")}
    if inputs != {"input_ids", "attention_mask"}:
        raise SystemExit(f"the graph has the inputs {sorted(inputs)}; input_ids and attention_mask were expected")
    for node in graph.graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "MatMul":
            raise SystemExit(f"{node.name} was not quantised")
        if node.op_type == "MatMulNBits" and (
            attributes["bits"],
            attributes["block_size"],
            attributes["accuracy_level"],
        ) != (8, 32, 4):
            raise SystemExit(f"{node.name} is not 8 bits in blocks of 32 with accuracy_level 4")


def write_manifest(package: Path) -> None:
    lines = []
    for name in FILES:
        content = (package / name).read_bytes()
        lines.append(f'"{name}" = {{ sha256 = "{hashlib.sha256(content).hexdigest()}", bytes = {len(content)} }}\n')
    (package / "model.toml").write_text(MANIFEST + "".join(lines), encoding="utf-8")


def main() -> None:
    run = Path(sys.argv[1])
    package = Path(sys.argv[2]) if len(sys.argv) > 2 else PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    build_graph(run, package / "model.onnx")
    shutil.copyfile(run / "tokenizer.json", package / "tokenizer.json")
    shutil.copyfile(HERE / "chat.jinja", package / "chat.jinja")
    write_manifest(package)
    size = sum(path.stat().st_size for path in package.iterdir())
    if size > MAX_PACKAGE_BYTES:
        raise SystemExit(f"the package has {size} bytes; {MAX_PACKAGE_BYTES} is the limit")
    print(f"{package.name}: {size} bytes")


if __name__ == "__main__":
    main()
