"""The weights that every subject of a bench gets, and what they answer: a plain forward pass to compare with."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tests.bench.models.shapes import EPSILON, ROTARY_BASE, SPECIAL_TOKENS, Shape

Array = NDArray[np.float32]
Weights = Mapping[str, Array]  # by the names of a Hugging Face checkpoint; matrices [out, in]


def draw(shape: Shape) -> dict[str, Array]:
    """Random weights, the same in each run. The special tokens' logits are 0: no answer ends by chance."""
    random = np.random.default_rng(7)

    def matrix(width: int, depth: int, scale: float) -> Array:
        drawn: Array = random.standard_normal((width, depth), np.float32) * np.float32(scale)
        return drawn

    weights = {"model.embed_tokens.weight": matrix(shape.vocabulary_size, shape.hidden, 1.0)}
    for layer in range(shape.num_layers):
        name = f"model.layers.{layer}"
        widths = {"q": shape.query_width, "k": shape.key_width, "v": shape.key_width}
        for part, width in widths.items():
            weights[f"{name}.self_attn.{part}_proj.weight"] = matrix(width, shape.hidden, shape.hidden**-0.5)
        weights[f"{name}.self_attn.o_proj.weight"] = matrix(shape.hidden, shape.query_width, shape.query_width**-0.5)
        for part in ("gate", "up"):
            weights[f"{name}.mlp.{part}_proj.weight"] = matrix(shape.intermediate, shape.hidden, shape.hidden**-0.5)
        weights[f"{name}.mlp.down_proj.weight"] = matrix(shape.hidden, shape.intermediate, shape.intermediate**-0.5)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{name}.{norm}.weight"] = np.ones(shape.hidden, np.float32)
    weights["model.norm.weight"] = np.ones(shape.hidden, np.float32)
    weights["lm_head.weight"] = matrix(shape.vocabulary_size, shape.hidden, shape.hidden**-0.5)
    weights["lm_head.weight"][: len(SPECIAL_TOKENS)] = 0
    return weights


def last_logits(shape: Shape, weights: Weights, token_ids: list[int]) -> Array:
    """The logits after the last token, in float32, by numpy alone."""
    hidden = weights["model.embed_tokens.weight"][token_ids]
    cos, sin = rotary(shape, len(token_ids))
    for layer in range(shape.num_layers):
        name = f"model.layers.{layer}"
        normed = _norm(hidden, weights[f"{name}.input_layernorm.weight"])
        hidden = hidden + _attention(shape, weights, f"{name}.self_attn", normed, cos, sin)
        normed = _norm(hidden, weights[f"{name}.post_attention_layernorm.weight"])
        gate = normed @ weights[f"{name}.mlp.gate_proj.weight"].T
        opened = gate / (1 + np.exp(-gate)) * (normed @ weights[f"{name}.mlp.up_proj.weight"].T)
        hidden = hidden + opened @ weights[f"{name}.mlp.down_proj.weight"].T
    logits: Array = _norm(hidden[-1], weights["model.norm.weight"]) @ weights["lm_head.weight"].T
    return logits


def rotary(shape: Shape, length: int) -> tuple[Array, Array]:
    """The cosines and sines of the rotary angles, [length, half a head]."""
    speeds = 1.0 / ROTARY_BASE ** (np.arange(0, shape.head_size, 2) / shape.head_size)
    angles = np.arange(length)[:, None] * speeds
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _norm(values: Array, weight: Array) -> Array:
    normed: Array = values / np.sqrt((values**2).mean(-1, keepdims=True) + EPSILON) * weight
    return normed


def _turn(heads: Array, cos: Array, sin: Array) -> Array:
    """Apply the rotary angles to [tokens, heads, head size]."""
    first, second = np.split(heads, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _attention(shape: Shape, weights: Weights, name: str, normed: Array, cos: Array, sin: Array) -> Array:
    length = len(normed)
    query, key, value = (
        (normed @ weights[f"{name}.{part}_proj.weight"].T).reshape(length, -1, shape.head_size) for part in "qkv"
    )
    query, key = _turn(query, cos, sin), _turn(key, cos, sin)
    group = shape.num_heads // shape.num_kv_heads
    key, value = np.repeat(key, group, axis=1), np.repeat(value, group, axis=1)
    scores = np.einsum("qhd,khd->hqk", query, key) * shape.head_size**-0.5
    scores += np.triu(np.full((length, length), -np.inf, np.float32), 1)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    seen = np.einsum("hqk,khd->qhd", shares, value).reshape(length, -1)
    attended: Array = seen @ weights[f"{name}.o_proj.weight"].T
    return attended
