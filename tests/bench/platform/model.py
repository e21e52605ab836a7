"""Builds the package that the platform's bench serves: a random Llama of 125 million parameters in int8.

    .venv-peers/bin/python -m tests.bench.platform.model     # needs `onnx` and `tokenizers`; a few seconds

The graph is the one that `onnxruntime_genai.models.builder` writes (GroupQueryAttention, weights in int8 by blocks of
32, accuracy_level 4), made here node by node, so that neither torch nor the builder is needed. The weights are drawn
already rounded; the same seed gives the same file. Its answers mean nothing and never end by themselves.
"""

import itertools
import string
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.bench.platform.packages import LARGE, write_manifest

HIDDEN, INTERMEDIATE, NUM_LAYERS = 768, 2048, 12
NUM_HEADS, NUM_KV_HEADS, HEAD_SIZE = 12, 4, 64
VOCABULARY_SIZE, CONTEXT_LENGTH = 32_000, 1024
BLOCK = 32
EPSILON = 1e-6
SPECIAL_TOKENS = ("<|pad|>", "<|begin|>", "<|end|>")


class GraphMaker:
    """Collects nodes and weights."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy_helper = helper, numpy_helper
        self._random = np.random.default_rng(7)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def node(self, kind: str, inputs: list[str], outputs: list[str], *, domain: str = "", **attributes: Any) -> str:
        """Add a node; returns its first output."""
        node = self._helper.make_node(kind, inputs, outputs, name=f"/{outputs[0]}", domain=domain, **attributes)
        self.nodes.append(node)
        return outputs[0]

    def weight(self, name: str, array: np.ndarray) -> str:
        """Add a weight; returns its name."""
        self.weights.append(self._numpy_helper.from_array(array, name))
        return name

    def random(self, *shape: int, scale: float) -> np.ndarray:
        """Drawn numbers around 0."""
        return (self._random.standard_normal(shape) * scale).astype(np.float32)

    def norm(self, name: str) -> str:
        """The weights of a norm."""
        return self.weight(f"{name}.weight", np.ones(HIDDEN, np.float32))

    def linear(self, name: str, source: str, depth: int, width: int, *, output: str = "", silent: int = 0) -> str:
        """A matrix in int8 by blocks of 32, symmetric around 128; its first `silent` outputs are always 0."""
        blocks = (width, depth // BLOCK, BLOCK)
        values = self._random.standard_normal(blocks) * 42 + 128
        quantized = self.weight(f"{name}.weight_Q8", np.clip(np.rint(values), 1, 255).astype(np.uint8))
        scale = np.full(blocks[:2], 1 / (42 * depth**0.5), np.float32)
        scale[:silent] = 0
        scales = self.weight(f"{name}.weight_scales", scale)
        shape = {"K": depth, "N": width, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
        inputs, outputs = [source, quantized, scales], [output or f"{name}.out"]
        return self.node("MatMulNBits", inputs, outputs, domain="com.microsoft", **shape)

    def add_counts(self) -> tuple[str, str]:
        """What GroupQueryAttention reads from the mask: the count of each row less one, and the width."""
        from onnx import TensorProto

        one = self.weight("one", np.array([1], np.int64))
        count = self.node("ReduceSum", ["attention_mask", one], ["count"], keepdims=0)
        past = self.node("Sub", [count, one], ["past"])
        past = self.node("Cast", [past], ["past_i32"], to=TensorProto.INT32)
        shape = self.node("Shape", ["attention_mask"], ["shape"])
        width = self.node("Gather", [shape, self.weight("axis", np.array(1, np.int64))], ["width"], axis=0)
        return past, self.node("Cast", [width], ["width_i32"], to=TensorProto.INT32)

    def add_rotary(self) -> tuple[str, str]:
        """The tables of rotary angles."""
        speeds = 1.0 / 10_000 ** (np.arange(0, HEAD_SIZE, 2) / HEAD_SIZE)
        angles = np.arange(CONTEXT_LENGTH)[:, None] * speeds
        cos = self.weight("cos_cache", np.cos(angles).astype(np.float32))
        return cos, self.weight("sin_cache", np.sin(angles).astype(np.float32))

    def add_norm(self, name: str, skip: str, source: str, *, last: bool = False) -> tuple[str, str]:
        """A norm of `skip + source`; returns it and the sum."""
        outputs = [f"{name}.out"] if last else [f"{name}.out", "", "", f"{name}.sum"]
        inputs = [skip, source, self.norm(name)]
        self.node("SkipSimplifiedLayerNormalization", inputs, outputs, domain="com.microsoft", epsilon=EPSILON)
        return outputs[0], outputs[-1]

    def add_attention(self, layer: int, source: str, counts: tuple[str, str], rotary: tuple[str, str]) -> str:
        """Attention with its cache."""
        name = f"layers.{layer}.attn"
        qkv = self.linear(f"{name}.qkv", source, HIDDEN, (NUM_HEADS + 2 * NUM_KV_HEADS) * HEAD_SIZE)
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        inputs = [qkv, "", "", *past, *counts, *rotary]
        attributes = {"num_heads": NUM_HEADS, "kv_num_heads": NUM_KV_HEADS, "scale": HEAD_SIZE**-0.5, "do_rotary": 1}
        outputs = [f"{name}.out", *present]
        self.node("GroupQueryAttention", inputs, outputs, domain="com.microsoft", **attributes)
        return self.linear(f"{name}.o", outputs[0], NUM_HEADS * HEAD_SIZE, HIDDEN)

    def add_mlp(self, layer: int, source: str) -> str:
        """The gated feed-forward part."""
        name = f"layers.{layer}.mlp"
        gate = self.linear(f"{name}.gate", source, HIDDEN, INTERMEDIATE)
        up = self.linear(f"{name}.up", source, HIDDEN, INTERMEDIATE)
        open_share = self.node("Sigmoid", [gate], [f"{name}.sigmoid"])
        activated = self.node("Mul", [gate, open_share], [f"{name}.silu"])
        return self.linear(f"{name}.down", self.node("Mul", [activated, up], [f"{name}.mul"]), INTERMEDIATE, HIDDEN)


def make_graph(path: Path) -> None:
    """Write the graph with its weights in one file."""
    import onnx
    from onnx import TensorProto, helper

    maker = GraphMaker()
    counts, rotary = maker.add_counts(), maker.add_rotary()
    embedding = maker.weight("embedding", maker.random(VOCABULARY_SIZE, HIDDEN, scale=1.0))
    hidden = maker.node("Gather", [embedding, "input_ids"], ["embedded"])
    normed = maker.node(
        "SimplifiedLayerNormalization", [hidden, maker.norm("first")], ["first.out"], axis=-1, epsilon=EPSILON
    )
    for layer in range(NUM_LAYERS):
        attended = maker.add_attention(layer, normed, counts, rotary)
        normed, hidden = maker.add_norm(f"layers.{layer}.post", hidden, attended)
        made = maker.add_mlp(layer, normed)
        normed, hidden = maker.add_norm(f"layers.{layer}.next", hidden, made, last=layer == NUM_LAYERS - 1)
    # Without the special tokens: an answer that ended by chance would be a shorter one.
    maker.linear("lm_head", normed, HIDDEN, VOCABULARY_SIZE, output="logits", silent=len(SPECIAL_TOKENS))

    def cache(prefix: str, length: str) -> list[Any]:
        dims = ["batch", NUM_KV_HEADS, length, HEAD_SIZE]
        names = [f"{prefix}.{layer}.{part}" for layer in range(NUM_LAYERS) for part in ("key", "value")]
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in names]

    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]),
        *cache("past_key_values", "past"),
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", VOCABULARY_SIZE])
    graph = helper.make_graph(maker.nodes, "bench-125m", inputs, [logits, *cache("present", "total")], maker.weights)
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def make_tokenizer() -> Tokenizer:
    """A byte-level tokenizer of 32,000 tokens: all bytes, then letters in twos, threes and fours."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: number for number, text in enumerate((*SPECIAL_TOKENS, *alphabet))}
    merges: list[tuple[str, str]] = []
    starts = list(itertools.chain("Ġ", string.ascii_lowercase))
    while len(vocabulary) < VOCABULARY_SIZE:
        longer = []
        for start, letter in itertools.product(starts, string.ascii_lowercase):
            if len(vocabulary) == VOCABULARY_SIZE:
                break
            vocabulary[start + letter] = len(vocabulary)
            merges.append((start, letter))
            longer.append(start + letter)
        starts = longer
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def main() -> None:
    """Write the package, the manifest last, so that half of one is none."""
    (LARGE / "model.toml").unlink(missing_ok=True)
    LARGE.mkdir(parents=True, exist_ok=True)
    make_graph(LARGE / "model.onnx")
    make_tokenizer().save(str(LARGE / "tokenizer.json"))
    write_manifest(LARGE, context_length=CONTEXT_LENGTH, slots=64)
    print(f"made {LARGE}")


if __name__ == "__main__":
    main()
