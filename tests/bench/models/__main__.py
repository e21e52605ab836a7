"""Makes the random models that the benches run, the same weights in every form, where they are not there yet.

    .venv-peers-bench/bin/python -m tests.bench.models [16m] [125m]

Random Llamas of 16 and 125 million parameters: a Hugging Face checkpoint, ONNX packages of each precision (with what
onnxruntime-genai needs to read the same file), GGUF files, and the last logits of one prompt by plain numpy, which
every subject's answer is compared with. Their answers mean nothing and never end by themselves.
"""

import json
import shutil
import sys

import numpy as np

from tests.bench.common.packages import write_manifest
from tests.bench.models.checkpoint import write_checkpoint
from tests.bench.models.gguf_file import TYPES, write_gguf
from tests.bench.models.graph import GraphMaker
from tests.bench.models.shapes import CONTEXT_LENGTH, PRECISIONS, SHAPES, Shape
from tests.bench.models.weights import Weights, draw, last_logits

NUM_SLOTS = 64


def genai_config(shape: Shape) -> str:
    """What onnxruntime-genai reads beside the graph."""
    decoder = {
        "session_options": {"log_id": "bench", "provider_options": []},
        "filename": "model.onnx",
        "head_size": shape.head_size,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "num_hidden_layers": shape.num_layers,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    model = {
        "type": "llama",
        "vocab_size": shape.vocabulary_size,
        "context_length": CONTEXT_LENGTH,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder": decoder,
    }
    search = {"do_sample": False, "max_length": CONTEXT_LENGTH, "past_present_share_buffer": True}
    return json.dumps({"model": model, "search": search}, indent=1)


def write_package(shape: Shape, weights: Weights, precision: str) -> None:
    """The manifest last, so that half of a package is none."""
    folder = shape.package(precision)
    folder.mkdir(parents=True, exist_ok=True)
    GraphMaker(shape, weights, precision).save(folder / "model.onnx")
    shutil.copy(shape.folder / "checkpoint" / "tokenizer.json", folder / "tokenizer.json")
    (folder / "genai_config.json").write_text(genai_config(shape))
    write_manifest(folder, context_length=CONTEXT_LENGTH, slots=NUM_SLOTS)


def make(shape: Shape) -> None:
    """All forms of one model."""
    weights = draw(shape)
    if not (shape.folder / "checkpoint" / "model.safetensors").exists():
        write_checkpoint(shape, weights, shape.folder / "checkpoint")
    prompt = np.random.default_rng(64).integers(300, shape.vocabulary_size, 64)
    np.savez(shape.folder / "reference.npz", prompt=prompt, logits=last_logits(shape, weights, prompt.tolist()))
    for precision in PRECISIONS:
        if not (shape.package(precision) / "model.toml").exists():
            write_package(shape, weights, precision)
            print(f"made {shape.package(precision)}")
    for kind in TYPES:
        path = shape.folder / f"{kind}.gguf"
        if not path.exists():
            write_gguf(shape, weights, kind, path.with_suffix(".half"))
            path.with_suffix(".half").rename(path)
            print(f"made {path}")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or SHAPES:
        make(SHAPES[wanted])
