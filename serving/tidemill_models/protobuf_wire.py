"""Protobuf's wire format, read in place, so that a model's graph is seen without loading its weights; and written."""

import mmap
from collections.abc import Iterator

from tidemill_models.errors import GraphError

_MAX_FIELDS = 5_000_000  # of one file; a decoder of 100 layers has about 100 thousand
_KEPT_BYTES = 4096  # of a message whose fields are read once; what is larger is a graph, or holds weights
_VARINT, _LENGTH = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}
_LONGER = 0x80  # from here on a byte of a number is not its last
_CUT_OFF = "is not an ONNX file, or is cut off"


class WireMessage:
    """A stretch of a buffer that holds one message. Fields are read in the order in which they stand."""

    __slots__ = ("_budget", "_buffer", "_end", "_fields", "_start")

    def __init__(
        self, buffer: bytes | mmap.mmap | memoryview, start: int, end: int, budget: list[int] | None = None
    ) -> None:
        self._buffer = buffer
        self._start = start
        self._end = end
        self._budget = [_MAX_FIELDS] if budget is None else budget  # one count, shared by all parts of a file
        self._fields: list[tuple[int, int | WireMessage]] | None = None

    @property
    def start(self) -> int:
        """Where in the buffer it begins."""
        return self._start

    def fields(self) -> Iterator[tuple[int, "int | WireMessage"]]:
        """Each field's number with its integer (varints), or the stretch that it holds (all others).

        Raises GraphError where the bytes are no message.
        """
        if self._fields is None:
            if self._end - self._start > _KEPT_BYTES:
                return self._read()
            self._fields = list(self._read())
        return iter(self._fields)

    def messages(self, number: int) -> Iterator["WireMessage"]:
        """The stretches of every field `number`."""
        for field, value in self.fields():
            if field == number and isinstance(value, WireMessage):
                yield value

    def message(self, number: int) -> "WireMessage":
        """The last stretch of field `number`, as protobuf has it; an empty one where there is none."""
        last = WireMessage(b"", 0, 0, self._budget)
        for value in self.messages(number):
            last = value
        return last

    def texts(self, number: int) -> list[str]:
        """Every field `number` as a string."""
        return [value.text() for value in self.messages(number)]

    def text_of(self, number: int) -> str:
        """Field `number` as a string, empty where there is none."""
        return self.message(number).text()

    def integer(self, number: int, default: int = 0) -> int:
        """The last integer of field `number`."""
        return next(reversed(self.integers(number)), default)

    def integers(self, number: int) -> list[int]:
        """Every field `number` as integers, packed or not."""
        integers: list[int] = []
        for field, value in self.fields():
            if field != number:
                continue
            integers += [value] if isinstance(value, int) else value.packed_integers()
        return integers

    def packed_integers(self) -> list[int]:
        """This stretch as varints, one behind the other."""
        integers: list[int] = []
        position = self._start
        while position < self._end:
            self._count_one()
            value, position = self._varint(position)
            integers.append(value)
        return integers

    def text(self) -> str:
        """This stretch as a string."""
        if self._end - self._start > 1 << 16:
            raise GraphError("has a name of more than 64 KiB")
        try:
            return bytes(self._buffer[self._start : self._end]).decode()
        except UnicodeDecodeError as error:
            raise GraphError("has a name that is not UTF-8") from error

    def content(self) -> memoryview:
        """This stretch as it stands in the buffer, which lives as long as the view does."""
        return memoryview(self._buffer)[self._start : self._end]

    def _read(self) -> Iterator[tuple[int, "int | WireMessage"]]:
        """Written out for numbers of one byte, as nearly all are: a graph is read at each start without a cache."""
        buffer, position, end, budget = self._buffer, self._start, self._end, self._budget
        length: int | None
        while position < end:
            budget[0] -= 1
            if budget[0] < 0:
                raise _too_many()
            key = buffer[position]
            position += 1
            if key >= _LONGER:
                key, position = self._varint(position - 1)
            number, wire_type = key >> 3, key & 7
            if wire_type in (_LENGTH, _VARINT):
                if position >= end:
                    raise GraphError(_CUT_OFF)
                value = buffer[position]
                position += 1
                if value >= _LONGER:
                    value, position = self._varint(position - 1)
                if wire_type == _VARINT:
                    yield number, value
                    continue
                length = value
            else:
                length = _FIXED_BYTES.get(wire_type)
            if length is None or number == 0 or position + length > end:
                raise GraphError(_CUT_OFF)
            yield number, WireMessage(buffer, position, position + length, budget)
            position += length

    def _count_one(self) -> None:
        self._budget[0] -= 1
        if self._budget[0] < 0:
            raise _too_many()

    def _varint(self, position: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if position >= self._end:
                raise GraphError(_CUT_OFF)
            byte = self._buffer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < _LONGER:
                return value, position
        raise GraphError("is not an ONNX file: a number has more than 10 bytes")


def _too_many() -> GraphError:
    return GraphError(f"has more than {_MAX_FIELDS} fields")


def encoded_field(number: int, value: "int | str | bytes | memoryview") -> bytes:
    """One field with its key: an integer as a varint, all else with its length before it."""
    if isinstance(value, int):
        return _encoded_varint(number << 3 | _VARINT) + _encoded_varint(value)
    content = value.encode() if isinstance(value, str) else value
    return b"".join((_encoded_varint(number << 3 | _LENGTH), _encoded_varint(len(content)), content))


def _encoded_varint(value: int) -> bytes:
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*content, value])
