"""Hypothesis strategies for any protobuf message, made from its descriptor: a new field is fuzzed by itself."""

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from tests.fuzzing.values import FLOATS, LIMITS, MAX_DEPTH, NUMBERS, ODD_TEXTS, Known, can_be, is_map


def messages(descriptor: Descriptor, known: Known, depth: int = 0, right: bytes = b"") -> st.SearchStrategy[Message]:
    """Messages of any content. `known`: values by a field's name that let some of them get further.

    `right` is a message that the method takes; some are it with few changes.
    """
    message_class = GetMessageClass(descriptor)
    fields = [(field, _values(field, known, depth)) for field in descriptor.fields if _may_hold(field, depth)]

    @st.composite
    def build(draw: Callable[[Any], Any]) -> Message:
        message = message_class()
        # Two numbers say which fields are there: most of them or few, and any set comes up.
        some, others = (draw(st.integers(0, 2 ** len(fields) - 1)) for _ in range(2))
        present = draw(st.sampled_from((some | others, some & others)))
        if right and draw(st.booleans()):
            message.MergeFromString(right)
            present = some & others & draw(st.integers(0, 2 ** len(fields) - 1))
        for index, (field, values) in enumerate(fields):
            if present >> index & 1:
                _put(message, field, draw(values))
        return message

    return build()


def _may_hold(field: FieldDescriptor, depth: int) -> bool:
    return field.message_type is None or depth < MAX_DEPTH


def _values(field: FieldDescriptor, known: Known, depth: int) -> st.SearchStrategy[Any]:
    if is_map(field):
        keys, values = field.message_type.fields
        pairs = st.tuples(_single(keys, known, depth), _single(values, known, depth))
        # The keys of the contract's maps are texts or numbers; what comes twice counts once.
        many = [str(number) if keys.type == FieldDescriptor.TYPE_STRING else number for number in range(400)]
        same = _single(values, known, depth).map(lambda value: [(key, value) for key in many])
        return st.lists(pairs, max_size=3) | same
    single = _single(field, known, depth)
    if field.is_repeated:
        return st.lists(single, max_size=3) | st.lists(single, min_size=1, max_size=3).map(_very_often)
    return single


def _very_often(values: list[Any]) -> list[Any]:
    """The same again and again, as long as it stays below what a server takes."""
    size = sum(each.ByteSize() if isinstance(each, Message) else len(str(each)) + 1 for each in values)
    return values * max(1, min(400, 20_000 // (size + 1)))


def _single(field: FieldDescriptor, known: Known, depth: int) -> st.SearchStrategy[Any]:
    anything = _of_type(field, known, depth)
    values = known.get(field.name)
    return mostly(st.sampled_from(values), anything) if values and can_be(field, values) else anything


@st.composite
def mostly(draw: Callable[[Any], Any], likely: st.SearchStrategy[Any], anything: st.SearchStrategy[Any]) -> Any:
    """Nine times in ten from the first; `one_of` takes its strategies equally often, however often they stand there."""
    return draw(likely if draw(st.integers(0, 9)) else anything)


def _of_type(field: FieldDescriptor, known: Known, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return st.deferred(lambda: messages(field.message_type, known, depth + 1))
    if field.type in LIMITS:
        lowest, highest = LIMITS[field.type]
        return st.one_of(
            st.integers(max(lowest, -3), 10), st.sampled_from((lowest, highest)), st.integers(lowest, highest)
        )
    if field.type in FLOATS:
        return st.sampled_from(NUMBERS) | st.floats()
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=40)
    return st.sampled_from(ODD_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def _put(message: Any, field: FieldDescriptor, value: Any) -> None:
    if is_map(field):
        target = getattr(message, field.name)
        for key, each in value:
            if isinstance(each, Message):
                target[key].CopyFrom(each)
            else:
                target[key] = each
    elif field.is_repeated:
        getattr(message, field.name).extend(value)
    elif isinstance(value, Message):
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


def texts_broken(descriptor: Descriptor) -> list[tuple[str, bytes]]:
    """For each place of the message that holds text: its path, and a message whose text there is not UTF-8."""
    return [(path, content.replace(_MARK, b"\xff\xfe\x80\xc0\xaf")) for path, content in _marked(descriptor, 0)]


_MARK = b"~mark"


def _marked(descriptor: Descriptor, depth: int) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            found.append((field.name, _tagged(field, _MARK)))
        elif field.message_type is not None and depth < MAX_DEPTH:
            inner = _marked(field.message_type, depth + 1)
            found += [(f"{field.name}.{path}", _tagged(field, content)) for path, content in inner]
    return found


def _tagged(field: FieldDescriptor, content: bytes) -> bytes:
    """A field of the wire format with a length; the messages here are short."""
    tag = field.number << 3 | 2
    assert len(content) < 128
    return (bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])) + bytes([len(content)]) + content
