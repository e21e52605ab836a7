"""Sessions, credits and the ledger."""

from tidemill.errors.kinds import FailedPreconditionError, NotFoundError, UnavailableError


class NoSessionError(FailedPreconditionError):
    """Nothing pays for the generation: start a session first."""

    reason = "NO_SESSION"


class SessionNotFoundError(NotFoundError):
    """This account has no such session."""

    reason = "SESSION_NOT_FOUND"


class SessionEndedError(FailedPreconditionError):
    """The session has ended, or is stopping: start a new one."""

    reason = "SESSION_ENDED"


class SessionDiffersError(FailedPreconditionError):
    """A session is open already with other limits."""

    reason = "SESSION_DIFFERS"


class InsufficientCreditsError(FailedPreconditionError):
    """The account's credits do not suffice; the sentence says what is there and what is missing."""

    reason = "INSUFFICIENT_CREDITS"


class RefundExceedsChargeError(FailedPreconditionError):
    """More would be given back than was charged."""

    reason = "REFUND_EXCEEDS_CHARGE"


class LedgerBlockNotFoundError(NotFoundError):
    """The ledger has no block of that number."""

    reason = "LEDGER_BLOCK_NOT_FOUND"


class ReceiptNotReadyError(UnavailableError):
    """The last rows are not sealed yet; they are within a second."""

    reason = "RECEIPT_NOT_READY"
