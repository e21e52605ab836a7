"""The ONNX graph as `onnxruntime_genai.models.builder` writes it (GroupQueryAttention, packed query, key and value,
logits of the last token only), made here node by node, so that neither torch nor the builder is needed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.bench.models.linear import Linear, Nodes
from tests.bench.models.shapes import CONTEXT_LENGTH, EPSILON, Shape
from tests.bench.models.weights import Weights, rotary


class GraphMaker:
    """Makes one model's graph in one precision."""

    def __init__(self, shape: Shape, weights: Weights, precision: str) -> None:
        self._shape = shape
        self._weights = weights
        self._nodes = Nodes()
        self._linear = Linear(self._nodes, precision)

    def save(self, path: Path) -> None:
        """Write the graph with its weights in one file."""
        nodes, weights = self._nodes, self._weights
        counts, tables = self._add_counts(), self._add_rotary()
        embedding = nodes.weight("embedding", weights["model.embed_tokens.weight"])
        hidden = nodes.add("Gather", [embedding, "input_ids"], ["embedded"])
        first = nodes.weight("first.weight", weights["model.layers.0.input_layernorm.weight"])
        nodes.add("SimplifiedLayerNormalization", [hidden, first], ["first.out"], axis=-1, epsilon=EPSILON)
        normed = "first.out"
        for layer in range(self._shape.num_layers):
            name = f"model.layers.{layer}"
            attended = self._add_attention(layer, normed, counts, tables)
            normed, hidden = self._add_norm(f"{name}.post_attention_layernorm", hidden, attended)
            made = self._add_mlp(layer, normed)
            is_last = layer == self._shape.num_layers - 1
            following = "model.norm" if is_last else f"model.layers.{layer + 1}.input_layernorm"
            normed, hidden = self._add_norm(following, hidden, made, is_last=is_last)
        last = nodes.add("Gather", [normed, nodes.weight("last", np.array([-1]))], ["pruned"], axis=1)
        self._linear.add("lm_head", last, [weights["lm_head.weight"]], output="logits")
        onnx.save(self._model(), path)

    def _model(self) -> Any:
        shape = self._shape

        def cache(prefix: str, length: str) -> list[Any]:
            dims = ["batch", shape.num_kv_heads, length, shape.head_size]
            names = [f"{prefix}.{layer}.{part}" for layer in range(shape.num_layers) for part in ("key", "value")]
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in names]

        inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]),
            *cache("past_key_values", "past"),
        ]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1, shape.vocabulary_size])
        outputs = [logits, *cache("present", "total")]
        graph = helper.make_graph(self._nodes.nodes, shape.name, inputs, outputs, self._nodes.weights)
        opsets = [helper.make_opsetid("", 22), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _add_counts(self) -> tuple[str, str]:
        """What GroupQueryAttention reads from the mask: the count of each row less one, and the width."""
        nodes = self._nodes
        one = nodes.weight("one", np.array([1], np.int64))
        count = nodes.add("ReduceSum", ["attention_mask", one], ["count"], keepdims=0)
        past = nodes.add("Sub", [count, one], ["past"])
        past = nodes.add("Cast", [past], ["past_i32"], to=TensorProto.INT32)
        shape = nodes.add("Shape", ["attention_mask"], ["shape"])
        width = nodes.add("Gather", [shape, nodes.weight("axis", np.array(1, np.int64))], ["width"], axis=0)
        return past, nodes.add("Cast", [width], ["width_i32"], to=TensorProto.INT32)

    def _add_rotary(self) -> tuple[str, str]:
        cos, sin = rotary(self._shape, CONTEXT_LENGTH)
        return self._nodes.weight("cos_cache", cos), self._nodes.weight("sin_cache", sin)

    def _add_norm(self, name: str, skip: str, source: str, *, is_last: bool = False) -> tuple[str, str]:
        """A norm of `skip + source`; returns it and the sum."""
        outputs = [f"{name}.out"] if is_last else [f"{name}.out", "", "", f"{name}.sum"]
        inputs = [skip, source, self._nodes.weight(f"{name}.weight", self._weights[f"{name}.weight"])]
        kind = "SkipSimplifiedLayerNormalization"
        self._nodes.add(kind, inputs, outputs, domain="com.microsoft", epsilon=EPSILON)
        return outputs[0], outputs[-1]

    def _add_attention(self, layer: int, source: str, counts: tuple[str, str], tables: tuple[str, str]) -> str:
        name, shape = f"model.layers.{layer}.self_attn", self._shape
        packed = self._linear.add(f"{name}.qkv", source, [self._weights[f"{name}.{p}_proj.weight"] for p in "qkv"])
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        outputs = [f"{name}.out", *present]
        self._nodes.add(
            "GroupQueryAttention",
            [packed, "", "", *past, *counts, *tables],
            outputs,
            domain="com.microsoft",
            num_heads=shape.num_heads,
            kv_num_heads=shape.num_kv_heads,
            scale=shape.head_size**-0.5,
            do_rotary=1,
        )
        return self._linear.add(f"{name}.o", outputs[0], [self._weights[f"{name}.o_proj.weight"]])

    def _add_mlp(self, layer: int, source: str) -> str:
        name, nodes = f"model.layers.{layer}.mlp", self._nodes
        gate = self._linear.add(f"{name}.gate", source, [self._weights[f"{name}.gate_proj.weight"]])
        up = self._linear.add(f"{name}.up", source, [self._weights[f"{name}.up_proj.weight"]])
        share = nodes.add("Sigmoid", [gate], [f"{name}.sigmoid"])
        opened = nodes.add("Mul", [gate, share], [f"{name}.silu"])
        product = nodes.add("Mul", [opened, up], [f"{name}.mul"])
        return self._linear.add(f"{name}.down", product, [self._weights[f"{name}.down_proj.weight"]])
