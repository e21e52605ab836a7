"""The one place where what gRPC and the wire say becomes an error of ours."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Protocol

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from tidemill import errors
from tidemill.connection import Connection
from tidemill.results import usage_of
from tidemill.tls_failures import tls_sentence
from tidemill.v1 import errors_pb2, usage_pb2

DOMAIN = "tidemill.v1"
DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"
_NOT_CONNECTED = ("failed to connect", "connection refused", "name resolution", "dns resolution", "no such file")

_SPEAKS_HTTP = "http1.x server"  # such as the OpenAI door


class CallFailure(Protocol):
    """What every `grpc.RpcError` can be asked, whether it came from a sync or an aio call."""

    def code(self) -> Any: ...
    def details(self) -> Any: ...
    def trailing_metadata(self) -> Any: ...


def error_of_call(failure: CallFailure, connection: Connection, *, request_id: str = "") -> errors.TidemillError:
    """The error of a call that gRPC ended, sync or aio. The target is named when nothing answered there."""
    code, text = failure.code(), failure.details() or ""
    error = _from_details(failure, code, text) or _from_code(code, text, connection)
    error.request_id = _request_id(failure) or request_id
    return error


def error_of_message(message: errors_pb2.Error, *, request_id: str = "") -> errors.TidemillError:
    """The error that a stream's end, or one input of a batch, carries."""
    try:
        reason = errors_pb2.Error.Reason.Name(message.reason).removeprefix("REASON_")
    except ValueError:  # a reason that is newer than this client
        reason = str(message.reason)
    retry_after = message.retry_delay.ToTimedelta() if message.HasField("retry_delay") else None
    error = _make(reason, grpc.StatusCode.UNKNOWN, message.message, message.field, retry_after)
    error.request_id = request_id
    return error


def _from_details(failure: CallFailure, code: grpc.StatusCode, text: str) -> errors.TidemillError | None:
    """What the server said in `google.rpc.Status`; None when it said nothing that is ours."""
    info, field, retry_after, usage = None, "", None, None
    for detail in _details(failure):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            violations = error_details_pb2.BadRequest.FromString(detail.value).field_violations
            field = violations[0].field if violations else ""
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry_after = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay.ToTimedelta()
        elif detail.Is(usage_pb2.Usage.DESCRIPTOR):
            usage = usage_of(usage_pb2.Usage.FromString(detail.value))
    if info is None or info.domain != DOMAIN:
        return None
    error = _make(info.reason, code, text, field, retry_after)
    if isinstance(error, errors.GenerationEndedError):
        error.usage = usage
    return error


def _request_id(failure: CallFailure) -> str:
    """By what name the call stands in the server's log; empty when no server answered."""
    return next((str(value) for key, value in failure.trailing_metadata() or () if key == REQUEST_ID_KEY), "")


def _details(failure: CallFailure) -> Iterable[any_pb2.Any]:
    for key, value in failure.trailing_metadata() or ():
        if key == DETAILS_KEY:
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                return ()
    return ()


def _make(
    reason: str, code: grpc.StatusCode, text: str, field: str, retry_after: timedelta | None
) -> errors.TidemillError:
    known = errors.BY_REASON.get(reason)
    if known is not None:
        return known(text, field=field, retry_after=retry_after)
    kind = errors.BY_CODE.get(code, errors.TidemillError)
    return kind(text, field=field, retry_after=retry_after, code=code, reason=reason)


def _from_code(code: grpc.StatusCode, text: str, connection: Connection) -> errors.TidemillError:
    if code is grpc.StatusCode.UNAVAILABLE:
        if (sentence := tls_sentence(text, connection)) is not None:
            return errors.TlsError(sentence)
        return _unreachable(text, connection.target)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceededError("The call did not end within its timeout.")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:
        sentence = f"One message is larger than gRPC takes here ({text}): send less at once."
        return errors.ResourceExhaustedError(sentence, reason="MESSAGE_TOO_LARGE")
    kind = errors.BY_CODE.get(code, errors.TidemillError)
    return kind(f"{connection.target} answered {code.name}: {text or 'it gave no reason'}", code=code)


def _unreachable(text: str, target: str) -> errors.UnreachableError:
    if _SPEAKS_HTTP in text:
        sentence = f"{target} speaks HTTP/1.1 and not gRPC: name the gRPC port of the server, usually 7400."
        return errors.UnreachableError(sentence)
    if any(sign in text.lower() for sign in _NOT_CONNECTED):
        sentence = f"No Tidemill server answers at {target}: start one with `tidemill serve`, or set TIDEMILL_TARGET."
        return errors.UnreachableError(sentence)
    error = errors.UnreachableError(f"The connection to {target} was lost: {text or 'it gave no reason'}")
    error.was_connected = True
    return error
