"""Hypothesis strategies for the bodies of OpenAI's API, made from what each of its fields may be."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params

from tests.fuzzing.messages import mostly
from tests.integration.api.conftest import MODEL

CHAT_FIELDS = tuple(chat_create_params.CompletionCreateParamsBase.__annotations__)
TEXT_FIELDS = tuple(completion_create_params.CompletionCreateParamsBase.__annotations__)
_OUR_FIELDS = ("stream", "top_k", "__class__", "", "ключ", "a" * 5000)

_ODD_SCALARS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**63,
    -(2**63) - 1,
    10**400,
    0.5,
    1e-320,
    1e-50,
    1e308,
    "",
    "\0",
    "\ud800",
    "é",
)
_scalars = st.sampled_from(_ODD_SCALARS) | st.text(max_size=8)
json_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_texts = st.sampled_from(("once upon a time", "the tide", "", "x" * 3000, "\0", "🌊" * 50)) | json_values
_parts = st.fixed_dictionaries({"type": st.sampled_from(("text", "image_url")), "text": _texts}) | json_values
_messages = st.fixed_dictionaries(
    {"role": st.sampled_from(("user", "system", "developer", "wizard")) | json_values},
    optional={"content": _texts | st.lists(_parts, max_size=3), "name": json_values, "tool_calls": json_values},
)
# Values that let some requests get far, by the name of the field; every field may be anything else too.
_LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from((MODEL, MODEL, MODEL, f"models/{MODEL}", "gpt-6")),
    "messages": st.lists(_messages, max_size=3) | st.just([{"role": "user", "content": "the tide"}]),
    "prompt": _texts | st.lists(_texts, max_size=4),
    "max_tokens": st.integers(1, 8),
    "max_completion_tokens": st.none(),
    "temperature": st.sampled_from((0, 0.7, 2, 1e-50)),
    "top_p": st.sampled_from((1, 0.9, 1e-40, 1e-50, 1e-320)),
    "n": st.integers(1, 3),
    "seed": st.sampled_from((0, -(2**63), 2**63 - 1)),
    "stop": st.sampled_from((None, "the", ["a", "b"])),
    "stream": st.booleans(),
    "stream_options": st.just({"include_usage": True}),
}


@st.composite
def bodies(draw: Callable[[Any], Any], fields: tuple[str, ...]) -> bytes:
    """A request's body: the fields that a page needs, and any of the others; sometimes no object at all."""
    if draw(st.integers(0, 19)) == 0:
        return json.dumps(draw(json_values)).encode()
    needed = [name for name in ("model", "messages", "prompt", "max_tokens") if name in fields]
    others = draw(st.lists(st.sampled_from((*fields, *_OUR_FIELDS)), max_size=4))
    pairs = [(name, draw(_value(name))) for name in [*needed, *others]]
    rest = ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs)
    return f"{{{rest}}}".encode()  # by hand: a name may come twice


def _value(name: str) -> st.SearchStrategy[Any]:
    return mostly(_LIKELY.get(name, st.none()), json_values)


# What each page takes as it is.
RIGHT: Mapping[str, Mapping[str, Any]] = {
    "/v1/chat/completions": {
        "model": MODEL,
        "messages": [{"role": "user", "content": "the tide"}],
        "max_tokens": 3,
    },
    "/v1/completions": {"model": MODEL, "prompt": "the tide", "max_tokens": 3},
}
_ODD_VALUES = (*_ODD_SCALARS, [], [1, "x"], {}, {"type": "text"}, "the", 1.5, 3, ["the", "x"], [[5, 6], [7]])


def varied_body(chance: random.Random, right: Mapping[str, Any], fields: Sequence[str]) -> bytes:
    """A right body with up to three odd fields."""
    body = dict(right)
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        body[chance.choice((*fields, *_OUR_FIELDS))] = chance.choice(_ODD_VALUES)
    return json.dumps(body).encode()


DEEP_BODIES = (
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[" * 5_000 + b"]" * 5_000,
    b'{"model": 1' + b"0" * 5_000 + b"}",
    b'{"temperature": 1e99999}',
    b'{"temperature": -NaN}',
    b"\xff\xfe{\x00}\x00",
    b'{"prompt": "\xed\xa0\x80"}',
    b'{"prompt": "\xc0\xaf"}',
    b'{"prompt": "\\ud800"}',
    b"",
    b"\0",
    b"null",
    b'"text"',
)
