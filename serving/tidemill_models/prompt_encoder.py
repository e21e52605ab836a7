"""What a control process needs of a model to take prompts for it, also while the model is stopped."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Self

from tidemill_models.chat import MAX_MESSAGES, MAX_TEXT_BYTES, Message, check_messages, num_utf8_bytes
from tidemill_models.chat_template import ChatTemplate
from tidemill_models.errors import (
    ChatNotSupportedError,
    EmptyPromptError,
    ModelPackageError,
    PromptTooLongError,
    UnknownTemplateError,
)
from tidemill_models.manifest import Manifest
from tidemill_models.package import ModelPackage
from tidemill_models.template_renderer import TemplateRenderer
from tidemill_models.tokenizer import Tokenizer

_INLINE_BYTES = 2048  # tokenized within half a millisecond, less than a change of threads is worth


class PromptEncoder:
    """Turns prompts and chats into the tokens of one model. May be used by several threads and event loops."""

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: Tokenizer,
        templates: Mapping[str, str],
        renderer: TemplateRenderer,
        *,
        max_text_bytes: int = MAX_TEXT_BYTES,
        max_messages: int = MAX_MESSAGES,
    ) -> None:
        """`templates`: the sources of the chat templates by name. Raises ModelPackageError without a decoder."""
        if manifest.decoder is None:
            raise ModelPackageError(f"the engine {manifest.engine} takes no prompts", key="engine")
        self.manifest = manifest
        self._decoder = manifest.decoder
        self._tokenizer = tokenizer
        self._max_text_bytes = max_text_bytes
        self._max_messages = max_messages
        bos_token, eos_token = self._token_texts()
        self._templates = {
            name: ChatTemplate(source, renderer, bos_token=bos_token, eos_token=eos_token)
            for name, source in templates.items()
        }

    @classmethod
    def from_package(cls, package: ModelPackage, renderer: TemplateRenderer) -> Self:
        """Read tokenizer and templates of an opened package. Raises ModelPackageError."""
        tokenizer = Tokenizer.from_file(package.tokenizer_path)
        return cls(package.manifest, tokenizer, package.chat_templates(), renderer)

    @property
    def context_length(self) -> int:
        """In tokens, prompt and answer together."""
        return self._decoder.context_length

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Any of them ends an answer."""
        return self._decoder.eos_token_ids

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    async def encode_prompt(self, text: str) -> list[int]:
        """The tokens of a plain prompt, the model's begin token in front; none of the text is a control token.

        Raises PromptError: empty, too many bytes, no room for an answer in the context.
        """
        if not text:
            raise EmptyPromptError
        num_bytes = num_utf8_bytes(text)
        if num_bytes <= _INLINE_BYTES:
            return self.encode_prompt_blocking(text)
        return await asyncio.to_thread(self.encode_prompt_blocking, text)

    def encode_prompt_blocking(self, text: str) -> list[int]:
        """`encode_prompt` for a caller that may wait: up to two seconds for a text of the largest size."""
        if not text:
            raise EmptyPromptError
        bos_token_id = self._decoder.bos_token_id
        begin = [] if bos_token_id is None else [bos_token_id]
        return self._check_length(begin + self._tokenizer.encode(text))

    async def encode_chat(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, template: str | None = None
    ) -> list[int]:
        """The tokens of a chat, rendered by the named template or the model's own.

        Raises PromptError (what was sent cannot be taken) and TemplateError (the template failed).
        """
        chat = self.manifest.chat
        if chat is None:
            raise ChatNotSupportedError(self.manifest.name)
        chat_template = self._templates.get(template or chat.template)
        if chat_template is None:
            raise UnknownTemplateError(template or chat.template, tuple(self._templates))
        limits = {"max_messages": self._max_messages, "max_text_bytes": self._max_text_bytes}
        check_messages(messages, chat.roles, **limits)
        parts = await chat_template.render(messages, add_generation_prompt=add_generation_prompt)
        if sum(len(part.text) for part in parts) <= _INLINE_BYTES:
            return self._check_length(self._tokenizer.encode_chat(parts))
        return self._check_length(await asyncio.to_thread(self._tokenizer.encode_chat, parts))

    def _check_length(self, token_ids: list[int]) -> list[int]:
        if not token_ids:
            raise EmptyPromptError
        if len(token_ids) >= self.context_length:
            raise PromptTooLongError(len(token_ids), self.context_length)
        return token_ids

    def _token_texts(self) -> tuple[str, str]:
        """What a template writes for `bos_token` and `eos_token`."""
        bos_token_id = self._decoder.bos_token_id
        bos_token = "" if bos_token_id is None else self._tokenizer.token_text(bos_token_id)
        return bos_token or "", self._tokenizer.token_text(self._decoder.eos_token_ids[0]) or ""
