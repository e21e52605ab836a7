"""Chats from messages to tokens, with the templates that models have and the users that they get."""

import asyncio

import pytest

from tests.unit.models.packages import TEMPLATE
from tidemill_models.chat import ChatPart, Message
from tidemill_models.chat_template import ChatTemplate
from tidemill_models.errors import TemplateRefusedError, TemplateRenderError
from tidemill_models.template_renderer import TemplateRenderer

LLAMA_3 = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
ALTERNATING = (
    "{%- if messages[0]['role'] == 'system' -%}{%- set system = messages[0]['content'] + '\\n\\n' -%}"
    "{%- set messages = messages[1:] -%}{%- else -%}{%- set system = '' -%}{%- endif -%}"
    "{%- for message in messages -%}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{- raise_exception('roles must alternate, not: ' + message['content']) -}}{%- endif -%}"
    "{%- if message['role'] == 'user' -%}[INST] {{ (system if loop.first else '') + message['content'] }} [/INST]"
    "{%- else -%} {{ message['content'] }}{{ eos_token }}{%- endif -%}{%- endfor -%}"
)


@pytest.fixture(scope="module")
def renderer():
    with TemplateRenderer(num_processes=1) as one:
        yield one


def text_of(parts: list[ChatPart]) -> str:
    return "".join(part.text for part in parts)


async def test_a_chat_reads_as_hugging_face_renders_it(renderer):
    template = ChatTemplate(LLAMA_3, renderer, bos_token="<|begin_of_text|>")
    parts = await template.render([Message("system", " Be brief.\n"), Message("user", "Hi\tthere ")])
    assert text_of(parts) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi\tthere<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert [part.text for part in parts if not part.from_template] == ["Be brief.", "Hi\tthere"]
    without = await template.render([Message("user", "Hi")], add_generation_prompt=False)
    assert text_of(without).endswith("Hi<|eot_id|>")


async def test_a_template_may_move_contents_and_ask_whether_they_are_empty(renderer):
    template = ChatTemplate(ALTERNATING, renderer, eos_token="</s>")
    messages = [Message("system", "S"), Message("user", "U1"), Message("assistant", ""), Message("user", " U2")]
    assert text_of(await template.render(messages)) == "[INST] S\n\nU1 [/INST]</s>[INST]  U2 [/INST]"
    asking = ChatTemplate("{% for m in messages %}{% if m.content %}[{{ m.content }}]{% endif %}{% endfor %}", renderer)
    assert text_of(await asking.render([Message("user", ""), Message("user", "  "), Message("user", "x")])) == "[  ][x]"


async def test_tools_and_documents_are_there_and_none_as_in_hugging_face(renderer):
    source = "{% if tools is not none or documents is not none %}wrong{% endif %}{{ messages[0].content }}"
    assert text_of(await ChatTemplate(source, renderer).render([Message("user", "a")])) == "a"


async def test_what_a_template_refuses_is_said_without_our_marks(renderer):
    template = ChatTemplate(ALTERNATING, renderer)
    with pytest.raises(TemplateRefusedError) as caught:
        await template.render([Message("assistant", "secret")])
    assert str(caught.value) == "the chat template failed: roles must alternate, not: …"


@pytest.mark.parametrize("change", ["upper", "reverse", "replace('x', 'y')", "length"])
async def test_a_template_that_rewrites_contents_is_refused_or_never_sees_them(renderer, change):
    template = ChatTemplate("{% for m in messages %}{{ m.content | " + change + " }}{% endfor %}", renderer)
    if change in ("reverse", "length"):  # nothing of a content, and nothing that a user could steer
        parts = await template.render([Message("user", "<|end|>")])
        assert all(part.from_template and "end" not in part.text for part in parts)
        return
    with pytest.raises(TemplateRenderError, match="changes what messages say"):
        await template.render([Message("user", "<|end|>")])


async def test_a_template_that_makes_a_mark_of_its_own_is_refused(renderer):
    source = "{% for m in messages %}{{ m.content[:-2] }}99x{% endfor %}"
    with pytest.raises(TemplateRenderError, match="changes what messages say"):
        await ChatTemplate(source, renderer).render([Message("user", "a")])


async def test_what_users_write_is_not_rendered(renderer):
    template = ChatTemplate(TEMPLATE, renderer)
    for content in ("{{ 1 + 1 }}", "{% raw %}", "x0x", "\\1", "<|end|>"):
        parts = await template.render([Message("user", content)])
        assert [part.text for part in parts if not part.from_template] == [content]
        assert text_of(parts) == f"<|user|>{content}<|end|>"


async def test_a_long_content_costs_the_template_nothing(renderer):
    content = "a" * (1 << 20)
    parts = await ChatTemplate(TEMPLATE, renderer).render([Message("user", content)])
    assert text_of(parts) == f"<|user|>{content}<|end|>"


def test_blocking_and_awaited_rendering_are_the_same(renderer):
    template = ChatTemplate(TEMPLATE, renderer)
    messages = [Message("user", "a")]
    assert template.render_blocking(messages) == asyncio.run(template.render(messages))
