"""What any call may meet."""

from tidemill_services.domain.errors.kinds import (
    AlreadyExistsError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
    UnimplementedError,
)


class FieldInvalidError(InvalidArgumentError):
    """A field is missing or outside its limits."""

    reason = "FIELD_INVALID"


class RequestIdReusedError(AlreadyExistsError):
    """The request_id was used with another request within 24 hours: use a new one."""

    reason = "REQUEST_ID_REUSED"


class LimitReachedError(ResourceExhaustedError):
    """A limit of the account or of the key is reached: try again later."""

    reason = "LIMIT_REACHED"


class ConnectionFullError(ResourceExhaustedError):
    """The connection runs as many calls as it may: wait for one to end."""

    reason = "CONNECTION_FULL"


class DrainingError(UnavailableError):
    """The server is shutting down: try again."""

    reason = "DRAINING"


class StoreUnavailableError(UnavailableError):
    """The store cannot be reached; nothing was spent: try again."""

    reason = "STORE_UNAVAILABLE"

    def __init__(self, message: str = "", *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class WaitExceededError(DeadlineExceededError):
    """The deadline, or the longest wait that was asked for, has passed."""

    reason = "DEADLINE_EXCEEDED"


class NotServedError(UnimplementedError):
    """This method is in the contract and not served yet."""

    reason = "UNIMPLEMENTED"


class FaultError(InternalError):
    """A fault of ours: tell the operator, who finds it in the log."""

    reason = "INTERNAL"
