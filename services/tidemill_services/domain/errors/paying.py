"""Sessions, credits and the ledger."""

from tidemill_services.domain.errors.kinds import FailedPreconditionError, NotFoundError, UnavailableError


class NoSessionError(FailedPreconditionError):
    """Nothing pays for this: start a session first (`tidemill session start`, `client.start_session()`)."""

    reason = "NO_SESSION"


class SessionNotFoundError(NotFoundError):
    """This account has no such session."""

    reason = "SESSION_NOT_FOUND"


class SessionEndedError(FailedPreconditionError):
    """The session has ended: start a new one."""

    reason = "SESSION_ENDED"


class SessionDiffersError(FailedPreconditionError):
    """A session of this model is open with other limits: change them (`tidemill session update`), or stop it first."""

    reason = "SESSION_DIFFERS"


class InsufficientCreditsError(FailedPreconditionError):
    """The account's credits do not suffice."""

    reason = "INSUFFICIENT_CREDITS"


class RefundExceedsChargeError(FailedPreconditionError):
    """More would be given back than was charged."""

    reason = "REFUND_EXCEEDS_CHARGE"


class LedgerBlockNotFoundError(NotFoundError):
    """The ledger has no block of that number."""

    reason = "LEDGER_BLOCK_NOT_FOUND"


class ReceiptNotReadyError(UnavailableError):
    """The last rows are not sealed yet; they are within a second: try again."""

    reason = "RECEIPT_NOT_READY"
