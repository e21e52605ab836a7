"""The root, and the kinds, which say what to do about it."""

from datetime import timedelta

import grpc


class TidemillError(Exception):
    """A call failed; `str(error)` is a sentence that says what to do."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    """The gRPC code."""
    reason: str = ""
    """The stable name of what was wrong; empty where the server gave none."""

    def __init__(
        self,
        message: str = "",
        *,
        field: str = "",
        retry_after: timedelta | None = None,
        code: grpc.StatusCode | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message or (type(self).__doc__ or "").splitlines()[0])
        self.field = field
        """Path of the field at fault; empty when no field is."""
        self.retry_after = retry_after
        """How long to wait before trying again; None when the server did not say."""
        self.request_id = ""
        """The id that the failed request carried; it finds the request in the server's log."""
        self.partial_text = ""
        """The text that had arrived when a generation broke."""
        if code is not None:
            self.code = code
        if reason is not None:
            self.reason = reason


class UnauthenticatedError(TidemillError):
    """The server does not know who calls."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDeniedError(TidemillError):
    """The key may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class InvalidArgumentError(TidemillError):
    """The request itself is wrong, whatever the state of the server."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFoundError(TidemillError):
    """What the request names does not exist for this account."""

    code = grpc.StatusCode.NOT_FOUND


class FailedPreconditionError(TidemillError):
    """Another call must come first."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class AlreadyExistsError(TidemillError):
    """What the request would create exists with other content."""

    code = grpc.StatusCode.ALREADY_EXISTS


class ResourceExhaustedError(TidemillError):
    """A limit is reached; waiting helps."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class UnavailableError(TidemillError):
    """It does not work now; trying again is right."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceededError(TidemillError):
    """The timeout, or the longest wait that was asked for, has passed."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class CallCancelledError(TidemillError):
    """The call was cancelled."""

    code = grpc.StatusCode.CANCELLED


class InternalError(TidemillError):
    """The server failed; its log knows more."""

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"


class UnimplementedError(TidemillError):
    """This server does not serve the method."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"
