"""Rewrites a GroupQueryAttention into our own operator that computes the same, see `native/`.

Those stay that our operator has no answer for: windows, soft caps, sinks, quantised caches, caches of float16.
"""

import struct
from collections.abc import Mapping

from tidemill_models.protobuf_wire import WireMessage, encoded_field

# Numbers of the fields in onnx.proto3.
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_FLOAT, _ATTRIBUTE_INTEGER, _ATTRIBUTE_TEXT, _ATTRIBUTE_TYPE = 1, 2, 3, 4, 20
_FLOAT, _INTEGER, _TEXT = 1, 2, 3  # kinds of attributes
_FLOAT32 = 1  # a type of tensors

_DOMAIN, _OPERATOR = "tidemill", "CacheAttention"
_NUM_INPUTS = 9  # up to the tables of angles; what stands behind them our operator does not know
_PAST_KEY, _COSINES = 3, 7
_LANES, _LARGEST_HEAD, _MOST_HEADS_OF_A_GROUP = 8, 512, 16

Attribute = float | int | str | None

# What our operator reads; and what may be said besides, since it changes nothing.
_READ = frozenset({"num_heads", "kv_num_heads", "scale", "do_rotary", "rotary_interleaved"})
_WITHOUT_EFFECT: Mapping[str, frozenset[Attribute]] = {
    "local_window_size": frozenset({-1}),
    "softcap": frozenset({0.0}),
    "smooth_softmax": frozenset({0, -1}),
    "qk_output": frozenset({0}),
    "causal": frozenset({1}),
    "k_quant_type": frozenset({"NONE"}),
    "v_quant_type": frozenset({"NONE"}),
    "kv_cache_bit_width": frozenset({0}),
    "sliding_window_cache": frozenset({0}),
    "qk_norm_epsilon": frozenset({1e-6}),
}


def own_attention(node: WireMessage, cache_type: tuple[int, list[int | str]], version: int) -> bytes | None:
    """The node as one of ours; None where it has to stay. `cache_type`: its past keys' element type and dimensions."""
    inputs = node.texts(_NODE_INPUT)
    while inputs and not inputs[-1]:
        inputs.pop()
    attributes = {each.text_of(_ATTRIBUTE_NAME): _value_of(each) for each in node.messages(_NODE_ATTRIBUTE)}
    if len(inputs) > _NUM_INPUTS or not _is_plain(attributes) or not _fits(attributes, *cache_type):
        return None
    if not attributes.get("do_rotary"):
        del inputs[_COSINES:]
    parts = [encoded_field(_NODE_INPUT, name) for name in inputs]
    parts += [encoded_field(_NODE_OUTPUT, name) for name in node.texts(_NODE_OUTPUT)]
    parts += [encoded_field(_NODE_NAME, node.text_of(_NODE_NAME)), encoded_field(_NODE_OP_TYPE, _OPERATOR)]
    parts += [
        encoded_field(_NODE_ATTRIBUTE, each.content())
        for each in node.messages(_NODE_ATTRIBUTE)
        if each.text_of(_ATTRIBUTE_NAME) in _READ
    ]
    said = encoded_field(_ATTRIBUTE_NAME, "version") + encoded_field(_ATTRIBUTE_INTEGER, version)
    parts.append(encoded_field(_NODE_ATTRIBUTE, said + encoded_field(_ATTRIBUTE_TYPE, _INTEGER)))
    return b"".join([*parts, encoded_field(_NODE_DOMAIN, _DOMAIN)])


def past_key_of(node: WireMessage) -> str:
    """The name of the past keys of a node, empty where it is no attention to a cache."""
    if node.text_of(_NODE_OP_TYPE) != "GroupQueryAttention" or node.text_of(_NODE_DOMAIN) != "com.microsoft":
        return ""
    inputs = node.texts(_NODE_INPUT)
    return inputs[_PAST_KEY] if len(inputs) > _PAST_KEY else ""


def _is_plain(attributes: Mapping[str, Attribute]) -> bool:
    return all(name in _READ or value in _WITHOUT_EFFECT.get(name, ()) for name, value in attributes.items())


def _fits(attributes: Mapping[str, Attribute], element_type: int, dims: list[int | str]) -> bool:
    """Many exports leave the head's size open: ONNX Runtime takes none that ours does not."""
    heads, kv_heads, size = attributes.get("num_heads"), attributes.get("kv_num_heads"), dims[-1] if dims else ""
    if element_type != _FLOAT32 or not isinstance(heads, int) or not isinstance(kv_heads, int):
        return False
    if isinstance(size, int) and (size > _LARGEST_HEAD or size % _LANES):
        return False
    return 0 < kv_heads <= heads <= kv_heads * _MOST_HEADS_OF_A_GROUP and heads % kv_heads == 0


def _value_of(attribute: WireMessage) -> Attribute:
    kind = attribute.integer(_ATTRIBUTE_TYPE)
    if kind == _FLOAT:
        content = bytes(attribute.message(_ATTRIBUTE_FLOAT).content())
        return round(float(struct.unpack("<f", content)[0]), 9) if content else 0.0
    if kind == _INTEGER:
        number = attribute.integer(_ATTRIBUTE_INTEGER)
        return number - (1 << 64) if number >> 63 else number
    return attribute.text_of(_ATTRIBUTE_TEXT) if kind == _TEXT else None
