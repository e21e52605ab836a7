"""The one table that turns kinds of errors into gRPC codes, and errors into messages."""

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tidemill.v1 import errors_pb2
from tidemill_services.api import convert
from tidemill_services.domain import errors

DOMAIN = "tidemill.v1"

CODES: dict[type[errors.TidemillError], grpc.StatusCode] = {
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.ResourceExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.UnimplementedError: grpc.StatusCode.UNIMPLEMENTED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}


def error_message(error: errors.TidemillError) -> errors_pb2.Error:
    """The message `Error` of an error of the catalogue."""
    message = errors_pb2.Error(reason=f"REASON_{error.reason}", message=str(error), field=error.field)
    if error.retry_after_seconds is not None:
        message.retry_delay.CopyFrom(_duration(error.retry_after_seconds))
    return message


def code_of(error: errors.TidemillError) -> grpc.StatusCode:
    """The gRPC code of an error's kind."""
    return next(code for kind, code in CODES.items() if isinstance(error, kind))


def status_of(error: errors.TidemillError, method: str) -> status_pb2.Status:
    """The rich status of an error that ended `method`."""
    message = error_message(error)
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata={"method": method.rpartition("/")[2]})
    ]
    if message.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=message.field, description=message.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.GenerationEndedError) and error.usage is not None:
        details.append(convert.usage(error.usage))
    if message.HasField("retry_delay"):
        details.append(error_details_pb2.RetryInfo(retry_delay=message.retry_delay))
    status = status_pb2.Status(code=code_of(error).value[0], message=message.message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
