"""Writes the small graphs that a GPU runs behind a model, so that whole logits need not be copied to the host.

`python models/logits_head/build.py` writes one for each type of logits to where the serving code reads them; it needs
the dependency group `train`.
See `tidemill_serving/decoder/devices/logits_head.py` for what goes in and comes out.
"""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

FOLDER = Path(__file__).parents[2] / "serving/tidemill_serving/decoder/devices/logits_heads"
BLOCK_LENGTH = 256  # tokens whose weights are summed up at once
LOGITS_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}


def head_of(logits_type: int) -> onnx.ModelProto:
    """A graph over rows of logits of one type."""
    int64, float32 = TensorProto.INT64, TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["logits"], ["exact"], to=float32),
        helper.make_node("TopK", ["exact", "num_top"], ["top_logits", "top_tokens"], axis=-1, largest=1, sorted=1),
        helper.make_node("Slice", ["top_logits", "zero", "one", "one"], ["highest"]),
        helper.make_node("Sub", ["exact", "highest"], ["below"]),
        helper.make_node("Exp", ["below"], ["plain_weights"]),
        helper.make_node("ReduceSum", ["plain_weights", "one"], ["totals"], keepdims=0),
        helper.make_node("Mul", ["below", "inverse_temperatures"], ["scaled"]),
        helper.make_node("Exp", ["scaled"], ["weights"]),
        helper.make_node("Pad", ["weights", "padding"], ["whole_blocks"]),
        helper.make_node("Reshape", ["whole_blocks", "block_shape"], ["blocks"]),
        helper.make_node("ReduceSum", ["blocks", "two"], ["block_weights"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info("logits", logits_type, ["rows", "vocabulary"]),
        helper.make_tensor_value_info("num_top", int64, [1]),
        helper.make_tensor_value_info("inverse_temperatures", float32, ["rows", 1]),
        helper.make_tensor_value_info("padding", int64, [4]),
    ]
    outputs = [
        helper.make_tensor_value_info("top_logits", float32, ["rows", "top"]),
        helper.make_tensor_value_info("top_tokens", int64, ["rows", "top"]),
        helper.make_tensor_value_info("totals", float32, ["rows"]),
        helper.make_tensor_value_info("block_weights", float32, ["rows", "blocks"]),
    ]
    constants = {"zero": [0], "one": [1], "two": [2], "block_shape": [0, -1, BLOCK_LENGTH]}
    graph = helper.make_graph(
        nodes,
        "logits_head",
        inputs,
        outputs,
        [helper.make_tensor(name, int64, [len(values)], values) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """Write all of them."""
    for name, logits_type in LOGITS_TYPES.items():
        (FOLDER / f"{name}.onnx").write_bytes(head_of(logits_type).SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
