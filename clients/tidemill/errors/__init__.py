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

from tidemill.errors.access import (
    AccountExistsError,
    AccountNotFoundError,
    ApiKeyInvalidError,
    ApiKeyMissingError,
    ApiKeyNotFoundError,
    ApiKeyRevokedError,
    LastAdminKeyError,
    RoleRequiredError,
    ScopeRequiredError,
)
from tidemill.errors.calls import (
    ConnectionFullError,
    DrainingError,
    FieldInvalidError,
    LimitReachedError,
    RequestIdReusedError,
    StoreUnavailableError,
)
from tidemill.errors.client_side import (
    BatchError,
    ConfigError,
    ProtocolError,
    ReceiptUnreadableError,
    TlsError,
    UnreachableError,
)
from tidemill.errors.kinds import (
    AlreadyExistsError,
    CallCancelledError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    TidemillError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from tidemill.errors.paying import (
    InsufficientCreditsError,
    LedgerBlockNotFoundError,
    NoSessionError,
    ReceiptNotReadyError,
    RefundExceedsChargeError,
    SessionDiffersError,
    SessionEndedError,
    SessionNotFoundError,
)
from tidemill.errors.serving import (
    ChatTemplateRefusedError,
    ChatUnsupportedError,
    ContextExceededError,
    GenerationEndedError,
    GenerationLostError,
    ModelColdError,
    ModelFailedError,
    ModelInUseError,
    ModelNotFoundError,
    ModelRequiredError,
    PromptEmptyError,
    QueueFullError,
    ReaderTooSlowError,
    ReplicaLostError,
    RoleUnknownError,
)

__all__ = [
    "BY_CODE",
    "BY_REASON",
    "AccountExistsError",
    "AccountNotFoundError",
    "AlreadyExistsError",
    "ApiKeyInvalidError",
    "ApiKeyMissingError",
    "ApiKeyNotFoundError",
    "ApiKeyRevokedError",
    "BatchError",
    "CallCancelledError",
    "ChatTemplateRefusedError",
    "ChatUnsupportedError",
    "ConfigError",
    "ConnectionFullError",
    "ContextExceededError",
    "DeadlineExceededError",
    "DrainingError",
    "FailedPreconditionError",
    "FieldInvalidError",
    "GenerationEndedError",
    "GenerationLostError",
    "InsufficientCreditsError",
    "InternalError",
    "InvalidArgumentError",
    "LastAdminKeyError",
    "LedgerBlockNotFoundError",
    "LimitReachedError",
    "ModelColdError",
    "ModelFailedError",
    "ModelInUseError",
    "ModelNotFoundError",
    "ModelRequiredError",
    "NoSessionError",
    "NotFoundError",
    "PermissionDeniedError",
    "PromptEmptyError",
    "ProtocolError",
    "QueueFullError",
    "ReaderTooSlowError",
    "ReceiptNotReadyError",
    "ReceiptUnreadableError",
    "RefundExceedsChargeError",
    "ReplicaLostError",
    "RequestIdReusedError",
    "ResourceExhaustedError",
    "RoleRequiredError",
    "RoleUnknownError",
    "ScopeRequiredError",
    "SessionDiffersError",
    "SessionEndedError",
    "SessionNotFoundError",
    "StoreUnavailableError",
    "TidemillError",
    "TlsError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnreachableError",
]


def _classes(base: type[TidemillError]) -> list[type[TidemillError]]:
    return [base, *(found for child in base.__subclasses__() for found in _classes(child))]


_CLIENT_ONLY = (ConfigError, UnreachableError, TlsError, ReceiptUnreadableError, ProtocolError, BatchError)
BY_REASON = {found.reason: found for found in _classes(TidemillError) if found.reason and found not in _CLIENT_ONLY}
"""The class of each reason that a server can give."""
BY_CODE = {found.code: found for found in TidemillError.__subclasses__() if found not in _CLIENT_ONLY}
"""The kind of each gRPC code, for answers that carry no reason of ours."""
