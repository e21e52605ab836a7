"""Folders as others publish them: what the builder writes, what transformers.js reads, checkpoints."""

import json
import shutil
from pathlib import Path

from tests import growing_graph

MODELS = Path(__file__).parents[2] / "models"
TINY = MODELS / "tiny-llama"


def write_side_files(folder: Path, **changes: object) -> Path:
    """The files beside a graph; `changes` go into config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(TINY / "tokenizer.json", folder)
    config = {
        "model_type": "llama",
        "max_position_embeddings": 1024,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "eos_token_id": 2,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 5], "bos_token_id": 1}))
    template = (TINY / "chat.jinja").read_text()
    words = {"chat_template": template, "bos_token": "<|begin|>", "add_bos_token": True, "eos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    (folder / "README.md").write_text("---\ntags:\n- tiny\nlicense: mit\n---\n# Tiny\n")
    return folder


def builder_folder(folder: Path) -> Path:
    """Graph and side files in one folder."""
    write_side_files(folder)
    shutil.copy(TINY / "model.onnx", folder)
    return folder


def transformers_js_folder(folder: Path) -> Path:
    """Several graphs in onnx/, the side files above them."""
    write_side_files(folder)
    (folder / "onnx").mkdir()
    shutil.copy(TINY / "model.onnx", folder / "onnx")
    shutil.copy(MODELS / "graphs" / "tiny-llama-int8.onnx", folder / "onnx" / "model_q8.onnx")
    shutil.copy(MODELS / "graphs" / "tiny-llama-fp16.onnx", folder / "onnx" / "model_fp16.onnx")
    growing_graph.write_growing_graph(folder / "onnx" / "decoder_model_merged.onnx", growing_graph.KINDS["merged"])
    return folder
