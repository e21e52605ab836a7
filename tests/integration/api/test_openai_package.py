"""The `openai` package, unchanged, through the real wire."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.integration.api.conftest import MODEL, Wire
from tests.server_process import ServerProcess

COLD_MODEL = "tiny-llama-positions"  # no other test wakes it
HELLO: list = [{"role": "user", "content": "hello there"}]
GREEDY: dict = {"model": MODEL, "max_tokens": 12, "temperature": 0, "extra_headers": {"x-tidemill-wait": "60"}}


def client_of(server: ServerProcess, **settings: object) -> openai.OpenAI:
    return openai.OpenAI(
        **{"api_key": server.api_key, "base_url": f"http://{server.http}/v1", "max_retries": 0, **settings}
    )


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with client_of(server) as client:
        yield client


@pytest.fixture
def paid(wire: Wire, client: openai.OpenAI) -> openai.OpenAI:
    """A client whose key has a session of the test model."""
    wire.start()
    return client


def test_the_models_are_listed_and_found_by_name(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {MODEL, COLD_MODEL, "tide-nano"} <= set(names)
    assert client.models.retrieve(MODEL).owned_by == "tidemill"
    assert client.models.retrieve("tide-nano").model_dump()["max_model_len"] == 512
    for name in ("no-such-model", "owner/No Name"):
        with pytest.raises(openai.NotFoundError) as refused:
            client.models.retrieve(name)
        assert refused.value.code == "MODEL_NOT_FOUND"


def test_a_chat_is_the_same_whole_and_streamed_and_says_what_it_used(paid: openai.OpenAI) -> None:
    whole = paid.chat.completions.create(messages=HELLO, **GREEDY)
    assert whole.choices[0].message.role == "assistant"
    assert whole.choices[0].message.content
    assert whole.choices[0].finish_reason in ("length", "stop")
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    chunks = list(
        paid.chat.completions.create(messages=HELLO, stream=True, stream_options={"include_usage": True}, **GREEDY)
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert {chunk.id for chunk in chunks} == {chunks[0].id} != {whole.id}


def test_a_prompt_is_the_same_whole_and_streamed(paid: openai.OpenAI) -> None:
    whole = paid.completions.create(prompt="once upon a time", **GREEDY)
    chunks = list(paid.completions.create(prompt="once upon a time", stream=True, **GREEDY))
    assert whole.choices[0].text
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(chunk.usage is None for chunk in chunks)


def test_the_asynchronous_client_gets_the_same_answers(server: ServerProcess, paid: openai.OpenAI) -> None:
    expected = paid.chat.completions.create(messages=HELLO, **GREEDY).choices[0].message.content

    async def ask() -> tuple[str | None, str, list[str]]:
        async with openai.AsyncOpenAI(
            api_key=server.api_key, base_url=f"http://{server.http}/v1", max_retries=0
        ) as client:
            whole = await client.chat.completions.create(messages=HELLO, **GREEDY)
            stream = await client.chat.completions.create(messages=HELLO, stream=True, **GREEDY)
            parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
            names = [model.id async for model in client.models.list()]
            return whole.choices[0].message.content, "".join(parts), names

    whole, streamed, names = asyncio.run(ask())
    assert whole == streamed == expected
    assert MODEL in names


def test_the_packages_own_stream_reader_gathers_the_same_answer(paid: openai.OpenAI) -> None:
    whole = paid.chat.completions.create(messages=HELLO, **GREEDY).choices[0].message.content or ""
    stop = whole[-4:]  # the package takes no answer that was cut at its length
    with paid.chat.completions.stream(messages=HELLO, stop=stop, **GREEDY) as stream:
        assert stream.get_final_completion().choices[0].message.content == whole[: whole.index(stop)]


@pytest.mark.parametrize("prompt", ["a", ["a mill by the sea", "a ship"]])
def test_n_answers_are_indexed_and_seeded_one_by_one(paid: openai.OpenAI, prompt: str | list[str]) -> None:
    sampled: dict = {**GREEDY, "temperature": 2, "top_p": 1, "extra_body": {"top_k": 0}}
    num_prompts = 1 if isinstance(prompt, str) else len(prompt)
    whole = paid.completions.create(prompt=prompt, n=3, seed=7, **sampled)
    assert [choice.index for choice in whole.choices] == list(range(3 * num_prompts))
    texts = dict.fromkeys(range(3 * num_prompts), "")
    for chunk in paid.completions.create(prompt=prompt, n=3, seed=7, stream=True, **sampled):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == {choice.index: choice.text for choice in whole.choices}
    assert len(set(texts.values())) > 1
    last = prompt if isinstance(prompt, str) else prompt[-1]
    alone = paid.completions.create(prompt=last, seed=7 + 3 * num_prompts - 1, **sampled)
    assert alone.choices[0].text == texts[3 * num_prompts - 1]
    assert whole.usage is not None
    num_alone = [
        paid.completions.create(prompt=each, **GREEDY).usage for each in ([prompt] if num_prompts == 1 else prompt)
    ]
    assert whole.usage.prompt_tokens == sum(usage.prompt_tokens for usage in num_alone if usage)


@pytest.mark.parametrize("as_list", [False, True])
def test_a_stop_string_ends_the_answer_and_never_shows(paid: openai.OpenAI, as_list: bool) -> None:
    settings: dict = {**GREEDY, "max_tokens": 40}
    whole = paid.completions.create(prompt="once upon a time", **settings).choices[0].text
    stop = whole[len(whole) // 2 :][:3]
    choice = paid.completions.create(
        prompt="once upon a time", stop=["not in it", stop] if as_list else stop, **settings
    ).choices[0]
    assert (choice.text, choice.finish_reason) == (whole[: whole.index(stop)], "stop")


def test_max_completion_tokens_bounds_the_answer(paid: openai.OpenAI) -> None:
    settings: dict = {key: value for key, value in GREEDY.items() if key != "max_tokens"}
    answer = paid.chat.completions.create(messages=HELLO, max_completion_tokens=2, **settings)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2
    assert answer.choices[0].finish_reason == "length"


def test_an_answer_can_be_sent_back_as_it_came_and_parts_are_one_text(paid: openai.OpenAI) -> None:
    first = paid.chat.completions.create(messages=HELLO, **GREEDY).choices[0].message
    parts = [{"type": "text", "text": "and "}, {"type": "text", "text": "then"}]
    texts = [
        paid.chat.completions.create(
            messages=[*HELLO, first, {"role": "user", "content": content}],  # type: ignore[typeddict-item]
            **GREEDY,
        )
        for content in (parts, "and then")
    ]
    assert texts[0].choices[0].message.content == texts[1].choices[0].message.content
    assert texts[0].usage == texts[1].usage


def test_the_headers_say_which_session_pays_and_what_it_has_cost(wire: Wire, client: openai.OpenAI) -> None:
    session = wire.start().session.name
    costs = []
    for stream in (False, True):
        response = client.completions.with_raw_response.create(prompt="a", stream=stream, **GREEDY)
        assert response.headers["x-tidemill-session"] == session
        costs.append(int(response.headers["x-tidemill-cost-microcredits"]))
        response.http_response.read()
    assert 0 < costs[0] <= costs[1] <= wire.stop().session.bill.cost_microcredits


def test_a_wrong_key_and_none_are_authentication_errors(server: ServerProcess) -> None:
    with client_of(server, api_key="tm_" + "0" * 43) as client, pytest.raises(openai.AuthenticationError) as refused:
        client.models.list()
    assert refused.value.code == "API_KEY_INVALID"


def test_what_nothing_pays_for_is_a_conflict_with_a_hint_and_not_tried_again(server: ServerProcess) -> None:
    with client_of(server, max_retries=2) as client, pytest.raises(openai.ConflictError) as refused:
        client.completions.create(prompt="a", **GREEDY)
    assert refused.value.code == "NO_SESSION"
    assert "session start" in str(refused.value)
    assert refused.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("wrong", "param", "reason"),
    [
        ({"temperature": 3}, "temperature", "FIELD_INVALID"),
        ({"top_p": 0}, "top_p", "FIELD_INVALID"),
        ({"max_tokens": 0}, "max_tokens", "FIELD_INVALID"),
        ({"frequency_penalty": 2.5}, "frequency_penalty", "FIELD_INVALID"),
        ({"logit_bias": {"5": 200}}, "logit_bias.5", "FIELD_INVALID"),
        ({"logit_bias": {"99999": 1}}, "logit_bias[99999]", "FIELD_INVALID"),
        ({"top_logprobs": 3}, "top_logprobs", "FIELD_INVALID"),
        ({"extra_body": {"min_p": 1.5}}, "min_p", "FIELD_INVALID"),
        ({"extra_body": {"repetition_penalty": 0}}, "repetition_penalty", "FIELD_INVALID"),
        ({"response_format": {"type": "json_object"}}, "response_format", "FIELD_INVALID"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "FIELD_INVALID"),
        ({"stop": ["a"] * 17}, "stop", "FIELD_INVALID"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "messages", "ROLE_UNKNOWN"),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, "messages", "CONTEXT_EXCEEDED"),
    ],
    ids=str,
)
def test_bad_requests_name_the_field(paid: openai.OpenAI, wrong: dict, param: str, reason: str) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            paid.chat.completions.create(**{"messages": HELLO, "stream": stream, **GREEDY, **wrong})
        assert (refused.value.param, refused.value.code) == (param, reason)


def test_a_cold_model_is_503_with_a_time_to_try_again_unless_the_caller_waits(
    wire: Wire, client: openai.OpenAI
) -> None:
    cold: dict = {"model": COLD_MODEL, "prompt": "a", "max_tokens": 2}
    wire.start(model=COLD_MODEL)
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as refused:
            client.completions.create(stream=stream, **cold)
        assert (refused.value.status_code, refused.value.code) == (503, "MODEL_COLD")
        assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
    wait = {"x-tidemill-wait": "60"}
    chunks = list(client.completions.create(stream=True, extra_headers=wait, **cold))
    assert chunks[-1].choices[0].finish_reason is not None
    assert client.completions.create(**cold).choices  # it is warm now: nobody needs to wait
    wire.stop(model=COLD_MODEL)


def test_the_example_of_the_documentation_runs(
    server: ServerProcess, wire: Wire, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "openai.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    wire.start(model="tide-nano")
    list(wire.generate(model="tide-nano"))
    names: dict[str, Any] = {"key": server.api_key}
    exec(program.replace("127.0.0.1:7480", server.http), names)
    names["client"].close()
    wire.stop(model="tide-nano")
    assert "session" in capsys.readouterr().out
