"""What any call may meet."""

from tidemill.errors.kinds import AlreadyExistsError, InvalidArgumentError, ResourceExhaustedError, UnavailableError


class FieldInvalidError(InvalidArgumentError):
    """A field is missing or outside its limits."""

    reason = "FIELD_INVALID"


class RequestIdReusedError(AlreadyExistsError):
    """The request id was used with another request."""

    reason = "REQUEST_ID_REUSED"


class LimitReachedError(ResourceExhaustedError):
    """A limit of the account or of the key is reached: try again after `retry_after`."""

    reason = "LIMIT_REACHED"


class ConnectionFullError(ResourceExhaustedError):
    """The connection runs as many calls as it may: wait for one to end, or use another client for more."""

    reason = "CONNECTION_FULL"


class DrainingError(UnavailableError):
    """The server is shutting down: try again."""

    reason = "DRAINING"


class StoreUnavailableError(UnavailableError):
    """The server's store cannot be reached; nothing was spent: try again."""

    reason = "STORE_UNAVAILABLE"
