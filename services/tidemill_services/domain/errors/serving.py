"""Models, and the generations that they answer."""

from typing import TYPE_CHECKING

from tidemill_services.domain.errors.kinds import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from tidemill_services.domain.generation import Usage


class ModelRequiredError(InvalidArgumentError):
    """No model was named and the key has no default one."""

    reason = "MODEL_REQUIRED"


class ModelNotFoundError(NotFoundError):
    """No model of that name is registered."""

    reason = "MODEL_NOT_FOUND"


class ModelInUseError(FailedPreconditionError):
    """The model is in use."""

    reason = "MODEL_IN_USE"


class ModelColdError(UnavailableError):
    """The model is not running; it is waking now."""

    reason = "MODEL_COLD"


class ModelFailedError(UnavailableError):
    """The model failed to start."""

    reason = "MODEL_FAILED"


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


class ChatUnsupportedError(FailedPreconditionError):
    """The model has no chat template: send a prompt."""

    reason = "CHAT_UNSUPPORTED"


class QueueFullError(ResourceExhaustedError):
    """The model's queue is full: try again."""

    reason = "QUEUE_FULL"


class ReaderTooSlowError(ResourceExhaustedError):
    """The stream was read too slowly and its buffer is full; the text until here stands."""

    reason = "READER_TOO_SLOW"


class ReplicaLostError(UnavailableError):
    """The replica was lost while it worked on this: try again."""

    reason = "REPLICA_LOST"


class GenerationEndedError(AlreadyExistsError):
    """The generation of this request_id has ended and its text is not kept any more: use a new request_id."""

    reason = "GENERATION_ENDED"

    def __init__(self, message: str = "", *, usage: "Usage | None" = None) -> None:
        super().__init__(message)
        self.usage = usage


class GenerationLostError(AlreadyExistsError):
    """The generation of this request_id began, and its text is lost with its process: use a new request_id."""

    reason = "GENERATION_LOST"
