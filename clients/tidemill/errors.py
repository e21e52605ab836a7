"""Everything that can go wrong, as one tree: one class a reason, under the kind that says what to do about it.

    TidemillError
    ├── ConfigError              this machine's settings are wrong; no call was made
    ├── UnauthenticatedError     ApiKeyMissing, ApiKeyInvalid
    ├── PermissionDeniedError    RoleRequired, ScopeRequired
    ├── InvalidArgumentError     FieldInvalid, PromptEmpty, ContextExceeded, RoleUnknown, ChatTemplateRefused,
    │                            ModelRequired, ReceiptUnreadable
    ├── NotFoundError            ModelNotFound, SessionNotFound, AccountNotFound, ApiKeyNotFound, LedgerBlockNotFound
    ├── FailedPreconditionError  NoSession, SessionEnded, SessionDiffers, ModelInUse, ChatUnsupported,
    │                            LastAdminKey, ApiKeyRevoked, InsufficientCredits, RefundExceedsCharge
    ├── AlreadyExistsError       RequestIdReused, GenerationEnded, GenerationLost, AccountExists
    ├── ResourceExhaustedError   QueueFull, ReaderTooSlow, ConnectionFull, LimitReached
    ├── UnavailableError         ModelCold, ModelFailed, ReplicaLost, Draining, StoreUnavailable, Unreachable
    │                            (Tls), ReceiptNotReady
    ├── DeadlineExceededError
    ├── CallCancelledError
    ├── InternalError            Protocol
    ├── UnimplementedError
    └── BatchError               some inputs of a list failed

The names of the reasons are those of `errors.proto` without their prefix.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from tidemill.results import Usage


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


class ConfigError(TidemillError):
    """The client's settings on this machine are wrong; no call was made."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "CONFIG"


# The kinds.


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


# The reasons.


class ApiKeyMissingError(UnauthenticatedError):
    """There is no API key: set TIDEMILL_API_KEY, pass api_key=, or run `tidemill serve`, which makes its user one."""

    reason = "API_KEY_MISSING"


class ApiKeyInvalidError(UnauthenticatedError):
    """The API key is unknown, revoked or expired."""

    reason = "API_KEY_INVALID"


class RoleRequiredError(PermissionDeniedError):
    """The key's role does not allow the call."""

    reason = "ROLE_REQUIRED"


class ScopeRequiredError(PermissionDeniedError):
    """The key has scopes, and none of them allows the call."""

    reason = "SCOPE_REQUIRED"


class FieldInvalidError(InvalidArgumentError):
    """A field is missing or outside its limits."""

    reason = "FIELD_INVALID"


class PromptEmptyError(InvalidArgumentError):
    """The prompt, or the message list, is empty."""

    reason = "PROMPT_EMPTY"


class ContextExceededError(InvalidArgumentError):
    """The prompt and the answer do not fit the model's context."""

    reason = "CONTEXT_EXCEEDED"


class RoleUnknownError(InvalidArgumentError):
    """A message has a role that the model does not know."""

    reason = "ROLE_UNKNOWN"


class ChatTemplateRefusedError(InvalidArgumentError):
    """The chat template is unknown, or it refused these messages."""

    reason = "CHAT_TEMPLATE_REFUSED"


class ModelRequiredError(InvalidArgumentError):
    """No model was named and none is the default."""

    reason = "MODEL_REQUIRED"


class ModelNotFoundError(NotFoundError):
    """No model of that name is registered."""

    reason = "MODEL_NOT_FOUND"


class SessionNotFoundError(NotFoundError):
    """This account has no such session."""

    reason = "SESSION_NOT_FOUND"


class AccountNotFoundError(NotFoundError):
    """There is no such account that this key may act on."""

    reason = "ACCOUNT_NOT_FOUND"


class LedgerBlockNotFoundError(NotFoundError):
    """The ledger has no block of that number."""

    reason = "LEDGER_BLOCK_NOT_FOUND"


class ApiKeyNotFoundError(NotFoundError):
    """There is no such key that this key may act on."""

    reason = "API_KEY_NOT_FOUND"


class NoSessionError(FailedPreconditionError):
    """Nothing pays for the generation: start a session first."""

    reason = "NO_SESSION"


class SessionEndedError(FailedPreconditionError):
    """The session has ended, or is stopping: start a new one."""

    reason = "SESSION_ENDED"


class SessionDiffersError(FailedPreconditionError):
    """A session is open already with other limits."""

    reason = "SESSION_DIFFERS"


class ModelInUseError(FailedPreconditionError):
    """The model has open sessions, or others use it."""

    reason = "MODEL_IN_USE"


class ChatUnsupportedError(FailedPreconditionError):
    """The model has no chat template: send a prompt."""

    reason = "CHAT_UNSUPPORTED"


class LastAdminKeyError(FailedPreconditionError):
    """Without this key nobody could administer the platform any more: make another one first."""

    reason = "LAST_ADMIN_KEY"


class ApiKeyRevokedError(FailedPreconditionError):
    """The key was revoked, which is for good: make a new one."""

    reason = "API_KEY_REVOKED"


class RequestIdReusedError(AlreadyExistsError):
    """The request id was used with another request."""

    reason = "REQUEST_ID_REUSED"


class GenerationEndedError(AlreadyExistsError):
    """The generation has ended, and the server keeps its text no more."""

    reason = "GENERATION_ENDED"
    usage: "Usage | None" = None
    """What it used."""


class InsufficientCreditsError(FailedPreconditionError):
    """The account's credits do not suffice; the sentence says what is there and what is missing."""

    reason = "INSUFFICIENT_CREDITS"


class RefundExceedsChargeError(FailedPreconditionError):
    """More would be given back than was charged."""

    reason = "REFUND_EXCEEDS_CHARGE"


class GenerationLostError(AlreadyExistsError):
    """The generation was lost with the server's process."""

    reason = "GENERATION_LOST"


class AccountExistsError(AlreadyExistsError):
    """There is an account of that name: choose another one."""

    reason = "ACCOUNT_EXISTS"


class QueueFullError(ResourceExhaustedError):
    """The model's queue is full: try again."""

    reason = "QUEUE_FULL"


class ConnectionFullError(ResourceExhaustedError):
    """The connection runs as many calls as it may: wait for one to end, or use another client for more."""

    reason = "CONNECTION_FULL"


class ReaderTooSlowError(ResourceExhaustedError):
    """The stream was read too slowly; the text until here stands."""

    reason = "READER_TOO_SLOW"


class LimitReachedError(ResourceExhaustedError):
    """A limit of the account or of the key is reached: try again after `retry_after`."""

    reason = "LIMIT_REACHED"


class ModelColdError(UnavailableError):
    """The model is not running and the request did not want to wait."""

    reason = "MODEL_COLD"


class ModelFailedError(UnavailableError):
    """The model failed to start."""

    reason = "MODEL_FAILED"


class ReplicaLostError(UnavailableError):
    """The replica was lost while it worked on this: try again."""

    reason = "REPLICA_LOST"


class DrainingError(UnavailableError):
    """The server is shutting down: try again."""

    reason = "DRAINING"


class ReceiptNotReadyError(UnavailableError):
    """The last rows are not sealed yet; they are within a second."""

    reason = "RECEIPT_NOT_READY"


class StoreUnavailableError(UnavailableError):
    """The server's store cannot be reached; nothing was spent: try again."""

    reason = "STORE_UNAVAILABLE"


# What only a client can see.


class UnreachableError(UnavailableError):
    """No Tidemill server answers there, or the connection to it was lost."""

    reason = "UNREACHABLE"
    was_connected: bool = False
    """Whether there was a connection, so that the server may have got the call."""


class TlsError(UnreachableError):
    """No secure connection to the server could be made."""

    reason = "TLS"


class ReceiptUnreadableError(InvalidArgumentError):
    """A file is no receipt, or cannot be read."""

    reason = "RECEIPT_UNREADABLE"


class ProtocolError(InternalError):
    """The server's answer breaks the contract."""

    reason = "PROTOCOL"


class BatchError(TidemillError):
    """Some inputs of a list failed; the others' texts stand.

    Its code and reason are those of the first failure.
    """

    def __init__(self, texts: list[str], failures: Mapping[int, TidemillError]) -> None:
        index, first = min(failures.items())
        super().__init__(
            f"{len(failures)} of {len(texts)} inputs failed; input {index}: {first}",
            code=first.code,
            reason=first.reason,
        )
        self.texts = texts
        """The text of every input in order; of a failed one, what had arrived."""
        self.failures = failures
        """What went wrong, by the input's place."""


def _classes(base: type[TidemillError]) -> list[type[TidemillError]]:
    return [base, *(found for child in base.__subclasses__() for found in _classes(child))]


_CLIENT_ONLY = (ConfigError, UnreachableError, TlsError, ReceiptUnreadableError, ProtocolError, BatchError)
BY_REASON = {found.reason: found for found in _classes(TidemillError) if found.reason and found not in _CLIENT_ONLY}
"""The class of each reason that a server can give."""
BY_CODE = {found.code: found for found in TidemillError.__subclasses__() if found not in _CLIENT_ONLY}
"""The kind of each gRPC code, for answers that carry no reason of ours."""
