"""Renders a chat with a template that never sees what the users wrote.

In place of each content the template gets a mark that nobody can guess, within the content's own leading and
trailing white space, so that `trim` does what it would have done. The rendered text is cut at the marks and the
contents are put back between the pieces. So the tokenizer knows for every character whether the template or a user
wrote it; and a content can neither slow a template down, nor fill its memory, nor end up in another process.

The price: a template that looks into a content (`'</think>' in content`) sees no such thing there.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tidemill_models.chat import ChatPart, Message
from tidemill_models.errors import TemplateError, TemplateRenderError
from tidemill_models.template_renderer import TemplateRenderer


class ChatTemplate:
    """One chat template of a model."""

    def __init__(self, source: str, renderer: TemplateRenderer, *, bos_token: str = "", eos_token: str = "") -> None:
        """`bos_token` and `eos_token` are what the template writes for these variables."""
        self._source = source
        self._renderer = renderer
        self._constants = {"bos_token": bos_token, "eos_token": eos_token, "tools": None, "documents": None}

    async def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[ChatPart]:
        """The chat's text in parts. `messages` were checked by `check_messages`. Raises TemplateError.

        With `add_generation_prompt` the text ends where the assistant's answer begins.
        """
        marks = _Marks()
        variables = self._variables(marks, messages, add_generation_prompt)
        with marks.hidden_in_errors():
            rendered = await self._renderer.render(self._source, variables)
        return list(marks.cut(rendered, messages))

    def render_blocking(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[ChatPart]:
        """`render` for a caller without an event loop."""
        marks = _Marks()
        variables = self._variables(marks, messages, add_generation_prompt)
        with marks.hidden_in_errors():
            rendered = self._renderer.render_blocking(self._source, variables)
        return list(marks.cut(rendered, messages))

    def _variables(self, marks: "_Marks", messages: Sequence[Message], add_generation_prompt: bool) -> dict[str, Any]:
        marked = [
            {"role": message.role, "content": marks.put(index, message.content)}
            for index, message in enumerate(messages)
        ]
        return {"messages": marked, "add_generation_prompt": add_generation_prompt, **self._constants}


class _Marks:
    """The marks of one rendering. Letters and digits only, which every filter leaves as they are."""

    def __init__(self) -> None:
        self._secret = secrets.token_hex(16)
        self._pattern = re.compile(f"x{self._secret}x([0-9]+)x")

    def put(self, index: int, content: str) -> str:
        """What stands for a content. White space alone stands for itself, so that it can be seen to be empty."""
        core = content.strip()
        return content.replace(core, f"x{self._secret}x{index}x", 1) if core else content

    def cut(self, rendered: str, messages: Sequence[Message]) -> Iterator[ChatPart]:
        """The template's text and the contents in their order. Raises TemplateRenderError."""
        start = 0
        for match in self._pattern.finditer(rendered):
            yield self._template_part(rendered[start : match.start()])
            index = int(match[1])
            if index >= len(messages):
                raise self._changed()
            yield ChatPart(messages[index].content.strip(), from_template=False)
            start = match.end()
        yield self._template_part(rendered[start:])

    @contextmanager
    def hidden_in_errors(self) -> Iterator[None]:
        """A TemplateError from within says no mark: a template may put a content into its refusal."""
        try:
            yield
        except TemplateError as error:
            raise type(error)(self._pattern.sub("…", str(error))) from None

    def _template_part(self, text: str) -> ChatPart:
        folded = text.lower()
        if self._secret[:8] in folded or self._secret[-8:] in folded:
            raise self._changed()
        return ChatPart(text, from_template=True)

    def _changed(self) -> TemplateRenderError:
        return TemplateRenderError("the chat template changes what messages say; it may only place and trim it")
