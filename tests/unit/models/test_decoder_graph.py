from pathlib import Path

import pytest

from tests.unit.models.onnx_bytes import (
    FLOAT,
    INT64,
    attention,
    decoder,
    decoder_inputs,
    decoder_outputs,
    model,
    node,
    tensor,
)
from tidemill_models.decoder_graph import check_decoder_graph
from tidemill_models.errors import GraphError
from tidemill_models.graph import read_graph

MODELS = Path(__file__).parents[2] / "models"
INPUTS, OUTPUTS = decoder_inputs(), decoder_outputs()


def without(tensors, *names):
    return {name: kind for name, kind in tensors.items() if name not in names}


def open_head(tensors):
    return {name: (kind, [*dims[:3], "head"][: len(dims)]) for name, (kind, dims) in tensors.items()}


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-llama-positions"])
def test_what_the_standard_builder_exports_is_taken(name):
    check_decoder_graph(read_graph(MODELS / name / "model.onnx"), files=(), context_length=1024)


def test_an_open_head_size_and_weights_in_a_file_of_the_package_are_taken(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model(open_head(INPUTS), open_head(OUTPUTS), [attention()], [tensor("w", [1], external="w.bin")]))
    check_decoder_graph(read_graph(path), files=["w.bin"], context_length=64)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (model(INPUTS, OUTPUTS, [node("MatMul")]), "has no GroupQueryAttention"),
        (model(INPUTS, OUTPUTS, [node("com.microsoft::BeamSearch")]), "searches by itself"),
        (model(INPUTS, OUTPUTS, [attention(), node("evil.corp::Op")]), "custom operator 'Op' of 'evil.corp'"),
        (model(INPUTS, OUTPUTS, [attention(), node("ai.onnx.ml::TreeEnsemble")]), "custom operator"),
        (model(without(INPUTS, "input_ids"), OUTPUTS, [attention()]), "has no input input_ids"),
        (model(without(INPUTS, "attention_mask"), OUTPUTS, [attention()]), "has no input attention_mask"),
        (model(INPUTS | {"input_ids": (FLOAT, ["b", "s"])}, OUTPUTS, [attention()]), "input_ids is float32"),
        (model(INPUTS | {"position_ids": (INT64, ["b"])}, OUTPUTS, [attention()]), "position_ids is int64 with 1 axes"),
        (model(INPUTS | {"encoder_hidden_states": (FLOAT, [1])}, OUTPUTS, [attention()]), "encoder-decoder"),
        (model(INPUTS | {"use_cache_branch": (9, [1])}, OUTPUTS, [attention()]), "merged export"),
        (model(INPUTS | {"inputs_embeds": (FLOAT, [1])}, OUTPUTS, [attention()]), "an input 'inputs_embeds'"),
        (model(INPUTS, OUTPUTS, [attention(), node("DynamicQuantizeLinear")]), "would depend on its neighbours"),
        (model(decoder_inputs(0), decoder_outputs(0), [attention()]), "has no inputs past_key_values"),
        (model(without(INPUTS, "past_key_values.1.value"), OUTPUTS, [attention()]), "has no past_key_values.1.value"),
        (model(without(INPUTS, "past_key_values.0.key"), OUTPUTS, [attention()]), "past_key_values.1.key' that the"),
        (model(INPUTS, without(OUTPUTS, "present.1.key"), [attention()]), "has no present.1.key"),
        (model(INPUTS, OUTPUTS | {"present.1.key": (10, ["b", 2, "t", 16])}, [attention()]), "present.1.key must be"),
        (
            model(INPUTS, OUTPUTS | {"present.1.key": (FLOAT, ["b", 4, "t", 16])}, [attention()]),
            "present.1.key must be",
        ),
        (
            model(INPUTS | {"past_key_values.0.key": (FLOAT, ["b", "h", "p", 16])}, OUTPUTS, [attention()]),
            "heads as a number",
        ),
        (model(INPUTS, without(OUTPUTS, "logits"), [attention()]), "has no output logits"),
        (model(INPUTS, OUTPUTS | {"logits": (FLOAT, ["b", 512])}, [attention()]), "logits are float32 with 2 axes"),
        (model(INPUTS, OUTPUTS, [attention()], [tensor("w", [1], external="../w")]), "weights in '../w'"),
        (model(INPUTS, OUTPUTS, [attention()], [tensor("w", [1], external="/etc/w")]), "weights in '/etc/w'"),
        (
            model(INPUTS, OUTPUTS, [attention("c")], [tensor("c", [63, 8])]),
            "knows 63 positions, fewer than the context",
        ),
    ],
)
def test_an_export_that_cannot_be_served_is_refused_with_what_is_wrong(tmp_path, content, sentence):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(GraphError) as caught:
        check_decoder_graph(read_graph(path), files=["model.onnx"], context_length=64, path=str(path))
    assert sentence in caught.value.sentence
    assert caught.value.path == str(path)


def test_the_form_that_these_refusals_start_from_is_taken(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(decoder())
    check_decoder_graph(read_graph(path), files=(), context_length=64)


@pytest.mark.parametrize("extra", [{}, {"use_cache_branch": (9, [1])}, {"num_logits_to_keep": (INT64, [])}])
def test_an_export_that_grows_its_cache_is_taken_where_the_package_says_so(tmp_path, extra):
    path = tmp_path / "model.onnx"
    path.write_bytes(model(INPUTS | extra, OUTPUTS, [node("Concat")]))
    check_decoder_graph(read_graph(path), files=(), context_length=64, cache="grows")


def test_an_export_that_appends_in_place_is_not_served_slowly_by_mistake(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(decoder())
    with pytest.raises(GraphError, match="leave `cache` out"):
        check_decoder_graph(read_graph(path), files=(), context_length=64, cache="grows")
