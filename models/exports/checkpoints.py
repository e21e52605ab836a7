"""Tiny random checkpoints of the architectures that people export: hidden 64, 2 layers, a vocabulary of 512."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[1] / "tiny_llama"))
from build import BEGIN, CHAT_TEMPLATE, END, PAD, train_tokenizer

SEED = 11
CONTEXT_LENGTH = 512
_COMMON = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT_LENGTH,
    "initializer_range": 0.3,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    "pad_token_id": PAD,
    "dtype": "float32",
}
_SIZES: dict[str, object] = {}  # that overrule those of a kind
_GROUPED = {"num_key_value_heads": 2, "head_dim": 16}
_LONGROPE = {
    "type": "longrope",  # as Phi 3.5 writes it; the builder reads this one
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [1.0 + i / 2 for i in range(8)],
    "original_max_position_embeddings": 128,
}


def _make(name: str, **changes: object) -> Callable[[], PreTrainedModel]:
    def make() -> PreTrainedModel:
        config = getattr(transformers, f"{name}Config")(**{**_COMMON, **changes, **_SIZES})
        return (transformers.GPT2LMHeadModel if name == "GPT2" else getattr(transformers, f"{name}ForCausalLM"))(config)

    return make


CHECKPOINTS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": _make("Llama", **_GROUPED, tie_word_embeddings=False),
    "llama-tied": _make("Llama", **_GROUPED, tie_word_embeddings=True),
    "qwen2": _make("Qwen2", num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": _make("Qwen3", **_GROUPED, tie_word_embeddings=True),
    "mistral": _make("Mistral", **_GROUPED, sliding_window=None),
    "mistral-window": _make("Mistral", **_GROUPED, sliding_window=64),
    "phi3": _make("Phi3", num_key_value_heads=2, original_max_position_embeddings=CONTEXT_LENGTH),
    "phi3-longrope": _make(
        "Phi3", num_key_value_heads=2, rope_parameters=_LONGROPE, original_max_position_embeddings=128
    ),
    "gemma": _make("Gemma", **_GROUPED),
    "gemma2": _make("Gemma2", **_GROUPED, sliding_window=64, query_pre_attn_scalar=16),
    "gemma3": _make("Gemma3", **_GROUPED, sliding_window=64, query_pre_attn_scalar=16),
    "gpt2": _make("GPT2", n_embd=64, n_layer=2, n_head=4, n_positions=CONTEXT_LENGTH),
}
if hasattr(transformers, "Gemma3TextConfig"):
    CHECKPOINTS["gemma3"] = lambda: transformers.Gemma3ForCausalLM(
        transformers.Gemma3TextConfig(**{**_COMMON, **_GROUPED, "sliding_window": 64, "query_pre_attn_scalar": 16})
    )


def adjust(**changes: object) -> None:
    """Make models of another size from now on."""
    _SIZES.update(changes)


def make_model(name: str) -> PreTrainedModel:
    """The random model of that name, always the same."""
    torch.manual_seed(SEED)
    return CHECKPOINTS[name]().eval()


def write_checkpoint(name: str, folder: Path) -> PreTrainedModel:
    """Write what a hub's repository of such a model holds; returns the model."""
    model = make_model(name)
    model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(), bos_token="<|begin|>", eos_token="<|end|>", pad_token="<|pad|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return model
