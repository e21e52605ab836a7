"""The root, and the kinds, which say what to do about it."""

from typing import ClassVar


class TidemillError(Exception):
    """Something that we tell the caller in one sentence, with what to do."""

    reason: ClassVar[str]

    def __init__(self, message: str = "", *, field: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").splitlines()[0])
        self.field = field
        self.retry_after_seconds = retry_after_seconds


class UnauthenticatedError(TidemillError):
    """We do not know who calls."""


class PermissionDeniedError(TidemillError):
    """The caller may not do this."""


class InvalidArgumentError(TidemillError):
    """The request itself is wrong, whatever the state of the system."""


class NotFoundError(TidemillError):
    """What the request names does not exist for this caller."""


class FailedPreconditionError(TidemillError):
    """The request does not fit the state of the system; another call must come first."""


class AlreadyExistsError(TidemillError):
    """What the request would create exists with other content."""


class ResourceExhaustedError(TidemillError):
    """A limit is reached; waiting helps."""


class UnavailableError(TidemillError):
    """It does not work now; trying again is right."""


class DeadlineExceededError(TidemillError):
    """The time that the caller gave has passed."""


class InternalError(TidemillError):
    """A fault of ours."""


class UnimplementedError(TidemillError):
    """The contract has it, this server does not."""
