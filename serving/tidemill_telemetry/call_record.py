"""The call that this code serves, as its log lines and spans tell it."""

import random
import re
from contextvars import ContextVar
from dataclasses import dataclass, field

from tidemill_telemetry.trace_context import TraceContext

# What can stand in a header, a log line and a shell without a second look.
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Origin:
    """The call that something is done for, told to whoever does it."""

    request_id: str
    trace: TraceContext

    def log_fields(self) -> dict[str, object]:
        """What each log line about it says."""
        return {"request_id": self.request_id, "trace_id": self.trace.trace_id, "span_id": self.trace.span_id}


@dataclass(slots=True)
class CallRecord:
    """What is known of one call by now. All that is done for the call, in whichever task, adds to the same record."""

    request_id: str
    trace: TraceContext
    method: str = ""
    account: str = ""
    session: str = ""
    model: str = ""
    prompt_tokens: int = 0  # of all its generations
    completion_tokens: int = 0
    finish_reasons: set[str] = field(default_factory=set)  # empty when it generated nothing
    failure: str = ""  # the reason with which a generation ended in mid-stream

    def name(self, request_id: str) -> None:
        """Take the caller's own name for the call, if it can be one."""
        if is_request_id(request_id):
            self.request_id = request_id

    def log_fields(self) -> dict[str, object]:
        """What each log line of the call says."""
        fields: dict[str, object] = {
            "request_id": self.request_id,
            "trace_id": self.trace.trace_id,
            "span_id": self.trace.span_id,
            "method": self.method,
        }
        if self.account:
            fields["account"] = self.account
        if self.session:
            fields["session"] = self.session
        if self.model:
            fields["model"] = self.model
        return fields


_current: ContextVar[CallRecord | None] = ContextVar("call", default=None)


def current_call() -> CallRecord | None:
    """The record of the call that this code serves; None outside of calls."""
    return _current.get()


def serve_call(record: CallRecord) -> None:
    """From now on this task, and those that it starts, serve this call."""
    _current.set(record)


def is_request_id(text: str) -> bool:
    """Whether this can name a request in headers and log lines."""
    return _REQUEST_ID.fullmatch(text) is not None


def new_request_id() -> str:
    """A name for a call whose caller gave none."""
    return f"{random.getrandbits(128):032x}"
