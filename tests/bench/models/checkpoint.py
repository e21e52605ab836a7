"""The weights as a Hugging Face checkpoint, for transformers and for what converts from it."""

import json
from pathlib import Path

from safetensors.numpy import save_file

from tests.bench.models.shapes import CONTEXT_LENGTH, EPSILON, ROTARY_BASE, SPECIAL_TOKENS, Shape
from tests.bench.models.tokenizer import make_tokenizer
from tests.bench.models.weights import Weights


def write_checkpoint(shape: Shape, weights: Weights, folder: Path) -> None:
    """Config, weights and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_size,
        "vocab_size": shape.vocabulary_size,
        "max_position_embeddings": CONTEXT_LENGTH,
        "rms_norm_eps": EPSILON,
        "rope_theta": ROTARY_BASE,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    special = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL_TOKENS, strict=True))
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | special))
    make_tokenizer(shape.vocabulary_size).save(str(folder / "tokenizer.json"))
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})
