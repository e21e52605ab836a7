"""The catalogue of what can be wrong with a model or with a text for it. One class a reason; its docstring says it.

Two kinds: `ModelPackageError` is the operator's (the package is wrong), `PromptError` is the caller's (the text is
wrong). A `TemplateError` is the fault of whoever wrote the template: the package's author, or an account.
"""

from collections.abc import Mapping


class ModelError(Exception):
    """Something about a model, told in one sentence."""


# The package.


class ModelPackageError(ModelError):
    """A model package is not as it must be.

    `path` names the file or folder and `key` the key in model.toml, dotted; either may be empty.
    """

    def __init__(self, sentence: str, *, path: str = "", key: str = "") -> None:
        place = ": ".join(part for part in (path, key) if part)
        super().__init__(f"{place}: {sentence}" if place else sentence)
        self.sentence = sentence
        self.path = path
        self.key = key


class GraphError(ModelPackageError):
    """The ONNX graph cannot be read, or the engine cannot serve it."""


class TokenizerError(ModelPackageError):
    """The tokenizer cannot be read, or does not fit the model."""


# What is to become a package.


class ModelImportError(ModelError):
    """A model cannot be imported; the sentence says why and what to do."""


class VariantNeededError(ModelImportError):
    """There are several graphs, and one must be named. `variants` are their names with their sizes in bytes."""

    def __init__(self, sentence: str, variants: Mapping[str, int]) -> None:
        super().__init__(sentence)
        self.variants = variants


class ConversionNeededError(ModelImportError):
    """There is a checkpoint and no graph: a graph must be made of it first."""


# The text that a caller sends.


class PromptError(ModelError):
    """A prompt or a chat cannot be taken."""


class EmptyPromptError(PromptError):
    """The prompt is empty: send at least one character, or at least one message."""

    def __init__(self) -> None:
        super().__init__("the prompt is empty: send at least one character, or at least one message")


class PromptTooLargeError(PromptError):
    """The text has more bytes than are tokenized in one request; the count may stop at the first text that is over."""

    def __init__(self, num_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"the text has {num_bytes} bytes of UTF-8; the limit is {limit_bytes}")
        self.num_bytes = num_bytes
        self.limit_bytes = limit_bytes


class PromptTooLongError(PromptError):
    """The prompt leaves no room for an answer in the model's context."""

    def __init__(self, num_tokens: int, context_length: int) -> None:
        super().__init__(
            f"the prompt has {num_tokens} tokens; the model's context is {context_length} tokens, prompt and answer "
            f"together, so a prompt may have {context_length - 1}"
        )
        self.num_tokens = num_tokens
        self.context_length = context_length


class InvalidTextError(PromptError):
    """The text cannot be written as UTF-8, or cannot be tokenized without forming a control token."""


class InvalidMessageError(PromptError):
    """A message is not a role with a content of text. `index` counts from 0."""

    def __init__(self, index: int, sentence: str) -> None:
        super().__init__(f"messages[{index}]: {sentence}")
        self.index = index


class UnknownRoleError(InvalidMessageError):
    """A message has a role that the model does not know."""

    def __init__(self, index: int, role: str, allowed: tuple[str, ...]) -> None:
        super().__init__(index, f"the role {role[:64]!r} is unknown; this model knows {', '.join(allowed)}")
        self.role = role
        self.allowed = allowed


class TooManyMessagesError(PromptError):
    """A chat has more messages than are rendered in one request."""

    def __init__(self, num_messages: int, limit: int) -> None:
        super().__init__(f"the chat has {num_messages} messages; the limit is {limit}")
        self.num_messages = num_messages
        self.limit = limit


class ChatNotSupportedError(PromptError):
    """The model has no chat template: send a prompt."""

    def __init__(self, model: str) -> None:
        super().__init__(f"the model {model} has no chat template: send a prompt")


class UnknownTemplateError(PromptError):
    """The chat names a template that the model does not have."""

    def __init__(self, template: str, known: tuple[str, ...]) -> None:
        super().__init__(f"the chat template {template[:64]!r} is unknown; this model has {', '.join(known)}")
        self.template = template
        self.known = known


# Chat templates.


class TemplateError(ModelError):
    """A chat template could not be rendered."""


class TemplateSyntaxError(TemplateError):
    """The template is not valid Jinja."""


class TemplateRefusedError(TemplateError):
    """The template itself refused the messages, by `raise_exception`; its sentence is the message."""


class TemplateRenderError(TemplateError):
    """The template failed while it was rendered, or did what the sandbox forbids."""


class TemplateTimeLimitError(TemplateError):
    """The template took longer than its limit of time, and was stopped."""


class TemplateMemoryLimitError(TemplateError):
    """The template needed more than its limit of memory, and was stopped."""


class TemplateSizeLimitError(TemplateError):
    """The template, or what it renders to, is larger than its limit."""


class TemplateRendererError(ModelError):
    """The renderer is closed, or its process cannot be started. Nothing is wrong with the template or the chat."""
