"""W3C trace context: which trace a call belongs to, and which span of it called.

https://www.w3.org/TR/trace-context/ says what may be; what is not so is ignored, and a new trace begins.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

SAMPLED = 0x01
_KNOWN_FLAGS = 0x03  # sampled, and that the trace id is random
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_KEY = r"(?:[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(rf"({_KEY})={_VALUE}", re.ASCII)
_MAX_MEMBERS = 32
_MAX_STATE_LENGTH = 4_096


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span of a trace: what it calls names it as the parent."""

    trace_id: str  # 32 hex digits
    span_id: str  # 16 hex digits
    flags: int = 0
    state: str = ""  # what tracing systems pass along, as it came

    @classmethod
    def new(cls) -> Self:
        """The first span of a new trace; nobody records it."""
        return cls(f"{_random_id(128):032x}", f"{_random_id(64):016x}")

    @classmethod
    def parse(cls, traceparents: Sequence[str], tracestates: Sequence[str] = ()) -> Self | None:
        """What a caller's headers say; None unless there is exactly one `traceparent` and it is valid.

        A `tracestate` that may not be so is dropped alone.
        """
        if len(traceparents) != 1 or (found := _TRACEPARENT.fullmatch(traceparents[0])) is None:
            return None
        version, trace_id, span_id, flags, more = found.groups()
        # Later versions may add to the end; this one may not.
        if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
            return None
        return cls(trace_id, span_id, int(flags, 16) & _KNOWN_FLAGS, _state_of(tracestates))

    @property
    def traceparent(self) -> str:
        """The header for what this span calls."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def child(self) -> "TraceContext":
        """A new span of the same trace."""
        return replace(self, span_id=f"{_random_id(64):016x}")


def _random_id(bits: int) -> int:
    return random.getrandbits(bits) or 1


def _state_of(headers: Sequence[str]) -> str:
    members = [member.strip(" \t") for header in headers for member in header.split(",")]
    members = [member for member in members if member]
    keys = [found.group(1) for member in members if (found := _MEMBER.fullmatch(member))]
    joined = ",".join(members)
    is_valid = len(keys) == len(members) <= _MAX_MEMBERS and len(set(keys)) == len(keys)
    return joined if is_valid and len(joined) <= _MAX_STATE_LENGTH else ""
