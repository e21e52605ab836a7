"""How parts of messages are read: times, durations and the names of enums."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def name_of(enum: EnumTypeWrapper, value: int, prefix: str) -> str:
    """The contract's name in lower case without its prefix; empty for the one that means nothing."""
    try:
        short = enum.Name(value).removeprefix(prefix).lower()
    except ValueError:  # newer than this client
        return str(value)
    return "" if short == "unspecified" else short


def time_of(message: Message, name: str) -> datetime | None:
    """The field of that name as an aware time; None when it is absent."""
    found: Timestamp = getattr(message, name)
    return found.ToDatetime(tzinfo=UTC) if message.HasField(name) else None


def duration_of(message: Message, name: str) -> timedelta | None:
    """The field of that name; None when it is absent."""
    found: Duration = getattr(message, name)
    return found.ToTimedelta() if message.HasField(name) else None
