"""What is put into a message's fields: the edges of each type, odd texts, and what exists, by the name of its field."""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

MAX_DEPTH = 6  # of messages within messages
_INT32, _INT64, _UINT32, _UINT64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1), (0, 2**32 - 1), (0, 2**64 - 1)
LIMITS = {
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_ENUM: _INT32,  # proto3 enums are open
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
}
FLOATS = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
ODD_TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "\x7f\x1b[31m",
    "\ufeff",
    "\u202egnp.exe",
    "é" * 200,
    "🌊" * 3000,
    "x" * 129,
    "x" * 20_000,
    "../../etc/passwd",
    "models/",
    "sessions/",
    "sessions/" + "0" * 32,
    "models/models/x",
    "'; DROP TABLE sessions; --",
    "%s%n{0}{{7*7}}",
    "-1",
    "NaN",
    "\U0010ffff\ufffe",
)
NUMBERS = (
    0.0,
    -0.0,
    1.0,
    0.7,
    -1.0,
    2.0,
    1e-50,
    1e-310,
    1e38,
    3.5e38,
    1e308,
    float("inf"),
    float("-inf"),
    float("nan"),
)

Known = Mapping[str, Sequence[Any]]


def can_be(field: FieldDescriptor, values: Sequence[Any]) -> bool:
    """Whether a field takes what is known for its name."""
    kinds: dict[type, Any] = {str: (FieldDescriptor.TYPE_STRING,), int: LIMITS, float: FLOATS}
    return field.type in kinds[type(values[0])]


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map, which the wire has as a list of pairs."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry
