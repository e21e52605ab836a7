"""Models, and the generations that they answer."""

from typing import TYPE_CHECKING

from tidemill.errors.kinds import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from tidemill.results import Usage


class ModelRequiredError(InvalidArgumentError):
    """No model was named and none is the default."""

    reason = "MODEL_REQUIRED"


class ModelNotFoundError(NotFoundError):
    """No model of that name is registered."""

    reason = "MODEL_NOT_FOUND"


class ModelInUseError(FailedPreconditionError):
    """The model has open sessions, or others use it."""

    reason = "MODEL_IN_USE"


class ModelColdError(UnavailableError):
    """The model is not running and the request did not want to wait."""

    reason = "MODEL_COLD"


class ModelFailedError(UnavailableError):
    """The model failed to start."""

    reason = "MODEL_FAILED"


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


class ChatUnsupportedError(FailedPreconditionError):
    """The model has no chat template: send a prompt."""

    reason = "CHAT_UNSUPPORTED"


class QueueFullError(ResourceExhaustedError):
    """The model's queue is full: try again."""

    reason = "QUEUE_FULL"


class ReaderTooSlowError(ResourceExhaustedError):
    """The stream was read too slowly; the text until here stands."""

    reason = "READER_TOO_SLOW"


class ReplicaLostError(UnavailableError):
    """The replica was lost while it worked on this: try again."""

    reason = "REPLICA_LOST"


class GenerationEndedError(AlreadyExistsError):
    """The generation has ended, and the server keeps its text no more."""

    reason = "GENERATION_ENDED"
    usage: "Usage | None" = None
    """What it used."""


class GenerationLostError(AlreadyExistsError):
    """The generation was lost with the server's process."""

    reason = "GENERATION_LOST"
