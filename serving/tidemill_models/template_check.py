"""Whether a package's chat templates say what a message says: each is rendered once."""

from contextlib import nullcontext

from tidemill_models.chat import Message
from tidemill_models.chat_template import ChatTemplate
from tidemill_models.errors import ModelPackageError, PromptError, TemplateError
from tidemill_models.package import ModelPackage
from tidemill_models.package_specs import ChatSpec
from tidemill_models.template_renderer import TemplateRenderer
from tidemill_models.tokenizer import Tokenizer

_PROBE = "Is the mill running?"


def check_templates(
    package: ModelPackage, chat: ChatSpec, tokenizer: Tokenizer, renderer: TemplateRenderer | None
) -> None:
    """Render each with `renderer`, or with one of its own. Raises ModelPackageError."""
    with nullcontext(renderer) if renderer else TemplateRenderer(num_processes=1) as used:
        _render_each(package, chat, tokenizer, used)


def _render_each(package: ModelPackage, chat: ChatSpec, tokenizer: Tokenizer, renderer: TemplateRenderer) -> None:
    role = "user" if "user" in chat.roles else chat.roles[0]
    for name, source in package.chat_templates().items():
        path = str(package.paths[chat.templates[name]])
        template = ChatTemplate(source, renderer)
        try:
            parts = template.render_blocking([Message(role, _PROBE)])
            tokenizer.encode_chat(parts)
        except (TemplateError, PromptError) as error:
            raise ModelPackageError(str(error), path=path, key=f"chat.templates.{name}") from error
        if all(part.from_template for part in parts):
            sentence = f"leaves out what a message of the role {role} says"
            raise ModelPackageError(sentence, path=path, key=f"chat.templates.{name}")
