"""The catalogue of refusals. One class a reason; its docstring is its sentence; its base says the kind.

The kinds are turned into gRPC codes, and into HTTP statuses, in one table at each door. `reason` equals the name in
`errors.proto` without its prefix.
"""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from tidemill_services.domain.generation import Usage


class TidemillError(Exception):
    """Something that we tell the caller in one sentence, with what to do."""

    reason: ClassVar[str]

    def __init__(self, message: str = "", *, field: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").splitlines()[0])
        self.field = field
        self.retry_after_seconds = retry_after_seconds


# The kinds.


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


class CannotStartError(TidemillError):
    """The program cannot start with what it found; the sentence says what to change. Never on the wire."""


class BackupUnknownError(CannotStartError):
    """The file is no backup that this version can restore."""


class BackupDamagedError(CannotStartError):
    """The backup is cut off or was changed."""


class UnimplementedError(TidemillError):
    """The contract has it, this server does not."""


class InternalError(TidemillError):
    """A fault of ours."""


# The reasons.


class ApiKeyMissingError(UnauthenticatedError):
    """No API key came with the call: send it as the metadata `authorization: Bearer <key>`."""

    reason = "API_KEY_MISSING"


class ApiKeyInvalidError(UnauthenticatedError):
    """The API key is unknown, revoked or expired."""

    reason = "API_KEY_INVALID"


class RoleRequiredError(PermissionDeniedError):
    """This needs a key with the role admin."""

    reason = "ROLE_REQUIRED"


class ScopeRequiredError(PermissionDeniedError):
    """The key has scopes, and none of them allows this."""

    reason = "SCOPE_REQUIRED"


class FieldInvalidError(InvalidArgumentError):
    """A field is missing or outside its limits."""

    reason = "FIELD_INVALID"


class PromptEmptyError(InvalidArgumentError):
    """The prompt is empty: send at least one character."""

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
    """No model was named and the key has no default one."""

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
    """Nothing pays for this: start a session first (`tidemill session start`, `client.start_session()`)."""

    reason = "NO_SESSION"


class SessionEndedError(FailedPreconditionError):
    """The session has ended: start a new one."""

    reason = "SESSION_ENDED"


class SessionDiffersError(FailedPreconditionError):
    """A session of this model is open with other limits: change them (`tidemill session update`), or stop it first."""

    reason = "SESSION_DIFFERS"


class ModelInUseError(FailedPreconditionError):
    """The model is in use."""

    reason = "MODEL_IN_USE"


class ChatUnsupportedError(FailedPreconditionError):
    """The model has no chat template: send a prompt."""

    reason = "CHAT_UNSUPPORTED"


class LastAdminKeyError(FailedPreconditionError):
    """This is the last administrator's key that can manage accounts and never expires: make another one first."""

    reason = "LAST_ADMIN_KEY"


class ApiKeyRevokedError(FailedPreconditionError):
    """The key was revoked, which is for good: make a new one."""

    reason = "API_KEY_REVOKED"


class InsufficientCreditsError(FailedPreconditionError):
    """The account's credits do not suffice."""

    reason = "INSUFFICIENT_CREDITS"


class RefundExceedsChargeError(FailedPreconditionError):
    """More would be given back than was charged."""

    reason = "REFUND_EXCEEDS_CHARGE"


class AccountExistsError(AlreadyExistsError):
    """There is an account of that name: choose another one."""

    reason = "ACCOUNT_EXISTS"


class RequestIdReusedError(AlreadyExistsError):
    """The request_id was used with another request within 24 hours: use a new one."""

    reason = "REQUEST_ID_REUSED"


class GenerationEndedError(AlreadyExistsError):
    """The generation of this request_id has ended and its text is not kept any more: use a new request_id."""

    reason = "GENERATION_ENDED"

    def __init__(self, message: str = "", *, usage: "Usage | None" = None) -> None:
        super().__init__(message)
        self.usage = usage


class GenerationLostError(AlreadyExistsError):
    """The generation of this request_id began, and its text is lost with its process: use a new request_id."""

    reason = "GENERATION_LOST"


class ModelColdError(UnavailableError):
    """The model is not running; it is waking now."""

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
    """The last rows are not sealed yet; they are within a second: try again."""

    reason = "RECEIPT_NOT_READY"


class StoreUnavailableError(UnavailableError):
    """The store cannot be reached; nothing was spent: try again."""

    reason = "STORE_UNAVAILABLE"

    def __init__(self, message: str = "", *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class QueueFullError(ResourceExhaustedError):
    """The model's queue is full: try again."""

    reason = "QUEUE_FULL"


class ConnectionFullError(ResourceExhaustedError):
    """The connection runs as many calls as it may: wait for one to end."""

    reason = "CONNECTION_FULL"


class ReaderTooSlowError(ResourceExhaustedError):
    """The stream was read too slowly and its buffer is full; the text until here stands."""

    reason = "READER_TOO_SLOW"


class LimitReachedError(ResourceExhaustedError):
    """A limit of the account or of the key is reached: try again later."""

    reason = "LIMIT_REACHED"


class WaitExceededError(DeadlineExceededError):
    """The deadline, or the longest wait that was asked for, has passed."""

    reason = "DEADLINE_EXCEEDED"


class NotServedError(UnimplementedError):
    """This method is in the contract and not served yet."""

    reason = "UNIMPLEMENTED"


class FaultError(InternalError):
    """A fault of ours: tell the operator, who finds it in the log."""

    reason = "INTERNAL"
