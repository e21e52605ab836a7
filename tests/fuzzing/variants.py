"""Messages like another one, made cheaply: a few of its fields, however deep, are changed by chance."""

import random
import string
import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.fuzzing.values import FLOATS, LIMITS, MAX_DEPTH, NUMBERS, ODD_TEXTS, Known, can_be, is_map

_MANY = 400
_MANY_BYTES = 20_000  # what is said many times stays below what a server takes
_LETTERS = string.printable + "é\u0663\u202e🌊\0\ufffe"


def varied(chance: random.Random, message: Message, known: Known) -> Message:
    """A copy of `message` with one to six changes. `known`: values that exist, by a field's name."""
    changed = type(message)()
    changed.CopyFrom(message)
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        _change(chance, changed, known, 0)
    return changed


def _change(chance: random.Random, message: Any, known: Known, depth: int) -> None:
    fields = [field for field, _ in message.ListFields()] if chance.random() < 0.5 else []
    fields = fields or list(message.DESCRIPTOR.fields)
    if not fields:
        return
    field = chance.choice(fields)
    if chance.random() < 0.15:
        message.ClearField(field.name)
    elif is_map(field):
        _change_map(chance, getattr(message, field.name), field, known)
    elif field.is_repeated:
        _change_list(chance, getattr(message, field.name), field, known, depth)
    elif field.message_type is None:
        setattr(message, field.name, _value(chance, field, known))
    elif depth < MAX_DEPTH:
        inner = getattr(message, field.name)
        inner.SetInParent()
        _change(chance, inner, known, depth + 1)


def _change_list(chance: random.Random, values: Any, field: FieldDescriptor, known: Known, depth: int) -> None:
    kind = chance.random()
    if values and kind < 0.1:
        del values[chance.randrange(len(values))]
    elif values and kind < 0.2:
        some = chance.choice(values)
        size = some.ByteSize() if isinstance(some, Message) else len(str(some))
        values.extend([some] * min(_MANY, _MANY_BYTES // (size + 1)))
    elif field.message_type is None:
        values.append(_value(chance, field, known))
    elif depth < MAX_DEPTH:
        _change(chance, chance.choice(values) if values and kind < 0.7 else values.add(), known, depth + 1)


def _change_map(chance: random.Random, pairs: Any, field: FieldDescriptor, known: Known) -> None:
    keys, values = field.message_type.fields
    for _ in range(chance.choice((1, 1, 1, 3, _MANY))):
        key = _value(chance, keys, known)
        if values.message_type is None:
            pairs[key] = _value(chance, values, known)
        else:
            _change(chance, pairs[key], known, MAX_DEPTH)


def _value(chance: random.Random, field: FieldDescriptor, known: Known) -> Any:
    likely = known.get(field.name)
    if likely and can_be(field, likely) and chance.random() < 0.6:
        return chance.choice(likely)
    if field.type in LIMITS:
        lowest, highest = LIMITS[field.type]
        near, far = chance.randint(max(lowest, -3), 10), chance.randint(lowest, highest)
        return chance.choice((near, near, far, lowest, highest))
    if field.type in FLOATS:
        return chance.choice((chance.choice(NUMBERS), chance.random(), _any_float(chance)))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return chance.random() < 0.5
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.randbytes(chance.randrange(40))
    letters = "".join(chance.choices(_LETTERS, k=chance.randrange(20)))
    return chance.choice((chance.choice(ODD_TEXTS), letters))


def _any_float(chance: random.Random) -> float:
    """Any of them: each pattern of bits is one."""
    (number,) = struct.unpack("<d", chance.randbytes(8))
    return float(number)
