"""Which graphs are served, by the names, types and shapes of what they take and give."""

import numpy as np
import pytest

from tidemill_serving.decoder.devices.device import ModelRefusedError
from tidemill_serving.decoder.devices.export import GraphValue, read_export

INT, FLOAT, HALF = "tensor(int64)", "tensor(float)", "tensor(float16)"


def graph(cache=FLOAT, logits=(None, None, 512), heads=2, head_size="d", extra=()):
    shape = ("batch", heads, "past", head_size)
    names = [f"{layer}.{part}" for layer in range(2) for part in ("key", "value")]
    inputs = {"input_ids": (INT, ("b", "s")), "attention_mask": (INT, ("b", "t"))}
    inputs |= {f"past_key_values.{name}": (cache, shape) for name in names} | dict(extra)
    outputs = {"logits": (FLOAT, logits)} | {f"present.{name}": (cache, shape) for name in names}
    return [[GraphValue(name, *rest) for name, rest in values.items()] for values in (inputs, outputs)]


def without(values, name):
    return [value for value in values if value.name != name]


def test_the_standard_export_is_read():
    export = read_export(*graph())
    assert (export.num_layers, export.num_kv_heads, export.head_size) == (2, 2, None)
    assert export.cache_dtype is np.float32
    assert not export.has_position_ids
    assert not export.has_pruned_logits


def test_the_other_forms_are_read():
    export = read_export(
        *graph(cache=HALF, logits=("b", 1, 512), head_size=64, extra={"position_ids": (INT, ("b", "s"))}.items())
    )
    assert export.head_size == 64
    assert export.cache_dtype is np.float16
    assert export.has_position_ids
    assert export.has_pruned_logits


def test_what_newer_and_older_exports_ask_besides_is_known():
    extra = {"num_logits_to_keep": (INT, ()), "use_cache_branch": ("tensor(bool)", (1,))}
    export = read_export(*graph(extra=extra.items()))
    assert export.has_cache_branch
    assert export.has_pruned_logits
    assert export.constant_inputs == {"num_logits_to_keep": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda i, o: ([v for v in i if "past" not in v.name], o), "keeps no cache"),
        (lambda i, o: (without(i, "attention_mask"), o), "lacks attention_mask"),
        (lambda i, o: (without(i, "past_key_values.1.value"), o), "lacks past_key_values.1.value"),
        (lambda i, o: (i, without(o, "present.0.key")), "lacks present.0.key"),
        (lambda i, o: (i, without(o, "logits")), "lacks logits"),
        (lambda i, o: ([*i, GraphValue("inputs_embeds", "tensor(float)", (1,))], o), "inputs_embeds"),
        (lambda i, o: ([*i, GraphValue("use_cache_branch", "tensor(bool)", (2,))], o), "must be one value"),
        (lambda i, o: ([*without(i, "input_ids"), GraphValue("input_ids", "tensor(int32)", (1, 1))], o), "int32"),
        (lambda i, o: (i, [*without(o, "logits"), GraphValue("logits", "tensor(double)", (1, 1, 5))]), "double"),
        (lambda i, o: graph(cache="tensor(bfloat16)"), "float32 or float16"),
        (lambda i, o: graph(heads="heads"), "how many key/value heads"),
    ],
)
def test_a_graph_that_cannot_be_served_is_refused_in_a_sentence(change, words):
    with pytest.raises(ModelRefusedError, match=words):
        read_export(*change(*graph()))
