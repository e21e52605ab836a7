"""The weights as GGUF files, for llama.cpp."""

from pathlib import Path

import gguf
import numpy as np

from tests.bench.models.shapes import CONTEXT_LENGTH, EPSILON, ROTARY_BASE, Shape
from tests.bench.models.weights import Array, Weights

TYPES = {
    "fp32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_REST = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(shape: Shape, weights: Weights, kind: str, path: Path) -> None:
    """All matrices in one type; the norms stay as they are."""
    matrix_type, file_type = TYPES[kind]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"{shape.name}-{kind}")
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.num_layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.num_heads)
    writer.add_head_count_kv(shape.num_kv_heads)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_freq_base(ROTARY_BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(shape.vocabulary_size)
    writer.add_tokenizer_model("none")
    writer.add_file_type(file_type)
    for name, array in weights.items():
        is_matrix = array.ndim == 2
        content = gguf.quants.quantize(_arranged(shape, name, array), matrix_type) if is_matrix else array
        writer.add_tensor(_gguf_name(name), content, raw_dtype=matrix_type if is_matrix else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _REST:
        return f"{_REST[stem]}.weight"
    layer, _, part = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{_PARTS[part]}.weight"


def _arranged(shape: Shape, name: str, array: Array) -> Array:
    """llama.cpp turns neighbours where Hugging Face turns halves: queries and keys change places within a head."""
    if "q_proj" not in name and "k_proj" not in name:
        return array
    halves = array.reshape(-1, 2, shape.head_size // 2, shape.hidden)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))
