"""Which chat templates of a model are served, and which roles they take: found out by rendering them."""

from collections.abc import Mapping
from dataclasses import dataclass

from tidemill_models.chat import Message
from tidemill_models.chat_template import ChatTemplate
from tidemill_models.errors import PromptError, TemplateError
from tidemill_models.manifest_tables import NAME
from tidemill_models.template_renderer import TemplateRenderer
from tidemill_models.tokenizer import Tokenizer

_TRIALS = {
    "system": [Message("system", "Be brief."), Message("user", "Good morning.")],
    "user": [Message("user", "Good morning.")],
    "assistant": [Message("user", "Good morning."), Message("assistant", "Hello."), Message("user", "How are you?")],
}


@dataclass(frozen=True, slots=True)
class Chat:
    """The templates that work, by name, the default first; the roles that this one takes; why others are left out."""

    templates: Mapping[str, str]
    roles: tuple[str, ...]
    left_out: tuple[str, ...]


def try_templates(
    templates: Mapping[str, str], tokenizer: Tokenizer, bos_token: str, eos_token: str, renderer: TemplateRenderer
) -> Chat:
    """Render each with a few messages. A template that cannot take a single one of a user is left out."""
    working: dict[str, str] = {}
    roles: tuple[str, ...] = ()
    left_out: list[str] = []
    for name, source in templates.items():
        template = ChatTemplate(source, renderer, bos_token=bos_token, eos_token=eos_token)
        kept = name.lower()
        why = "its name has other letters than a-z, 0-9 and .-_" if not NAME.fullmatch(kept) else ""
        if why or (why := _failure(template, tokenizer, _TRIALS["user"])):
            left_out.append(f"the chat template {name[:64]!r} is left out: {why}")
            continue
        if not working:
            roles = tuple(role for role, trial in _TRIALS.items() if not _failure(template, tokenizer, trial))
        working[kept] = source
    return Chat(working, roles, tuple(left_out))


def _failure(template: ChatTemplate, tokenizer: Tokenizer, messages: list[Message]) -> str:
    """Why these messages cannot be sent; empty where they can."""
    try:
        parts = template.render_blocking(messages)
        tokenizer.encode_chat(parts)
    except (TemplateError, PromptError) as error:
        return str(error)
    said = {part.text for part in parts if not part.from_template}
    return "" if all(message.content in said for message in messages) else "it leaves out what a message says"
