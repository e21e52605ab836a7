import pytest
from starlette.datastructures import Headers

from tidemill_services.domain import errors
from tidemill_services.domain.generation import ChatInput, GenerationOptions, PromptInput, WaitPolicy
from tidemill_services.gateway.http_errors import KINDS, error_body, error_response, kind_of
from tidemill_services.gateway.openai_requests import chat_request, text_request

NO_HEADERS = Headers({})
CHAT = {"messages": [{"role": "user", "content": "a"}]}
NOT_WAITING = WaitPolicy(fail_cold=True)


def test_what_is_absent_or_null_is_the_models_default() -> None:
    for body in ({"prompt": "a"}, {"prompt": "a", "n": None, "temperature": None, "stop": None, "model": None}):
        request = text_request(body, NO_HEADERS)
        assert request.options == GenerationOptions(wait=NOT_WAITING)
        assert (request.model, request.num_choices, request.stream, request.include_usage) == ("", 1, False, False)
        assert request.prompts == (("prompt", PromptInput("a")),)


def test_every_field_that_the_engine_has_arrives() -> None:
    body = {
        "model": "tide-nano",
        "prompt": ["a", "b"],
        "max_tokens": 5,
        "temperature": 1,
        "top_p": 0.5,
        "top_k": 40,
        "seed": -1,
        "stop": "x",
        "n": 2,
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
    }
    request = text_request(body, Headers({"x-tidemill-wait": "2.5"}))
    assert request.options == GenerationOptions(5, 1.0, 0.5, 40, -1, ("x",), WaitPolicy(max_wait_seconds=2.5))
    assert request.prompts == (("prompt[0]", PromptInput("a")), ("prompt[1]", PromptInput("b")))
    assert (request.model, request.num_choices, request.stream, request.include_usage) == ("tide-nano", 2, True, True)


def test_a_chats_messages_arrive_as_roles_and_texts() -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": None, "tool_calls": None, "annotations": []},
    ]
    ((path, chat),) = chat_request({"messages": messages, "max_completion_tokens": 3}, NO_HEADERS).prompts
    assert path == "messages"
    assert chat == ChatInput((("system", "be brief"), ("user", "ab"), ("assistant", "c")))


@pytest.mark.parametrize(
    "neutral",
    [
        {"logit_bias": {}, "ignore_eos": False},
        {"logprobs": False, "top_logprobs": 0, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}},
        {"store": False, "metadata": None, "service_tier": "auto", "modalities": ["text"], "parallel_tool_calls": True},
        {"user": "u", "safety_identifier": "s", "prompt_cache_key": "k"},
        {"add_generation_prompt": True, "continue_final_message": False, "skip_special_tokens": True, "min_tokens": 0},
        {"stop_token_ids": [], "length_penalty": 1, "use_beam_search": False, "spaces_between_special_tokens": True},
    ],
    ids=str,
)
def test_what_asks_for_nothing_is_taken(neutral: dict[str, object]) -> None:
    assert chat_request({**CHAT, **neutral}, NO_HEADERS) == chat_request(CHAT, NO_HEADERS)


@pytest.mark.parametrize(("sent", "meant"), [(None, None), (0, 0), (-1, 0), (40, 40)])
def test_all_tokens_are_a_top_k_of_0_or_of_vllms_minus_1(sent: int | None, meant: int | None) -> None:
    assert chat_request({**CHAT, "top_k": sent}, NO_HEADERS).options.top_k == meant


def test_a_chat_may_end_without_the_answers_beginning() -> None:
    for sent, meant in (({}, True), ({"add_generation_prompt": None}, True), ({"add_generation_prompt": False}, False)):
        ((_, chat),) = chat_request({**CHAT, **sent}, NO_HEADERS).prompts
        assert isinstance(chat, ChatInput)
        assert chat.add_generation_prompt is meant


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"frequency_penalty": 2.1}, "frequency_penalty"),
        ({"presence_penalty": False}, "presence_penalty"),
        ({"min_p": -0.1}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"05": 1, "5": 1}}, "logit_bias.5"),
        ({"logit_bias": {"five": 1}}, "logit_bias.five"),
        ({"logit_bias": {str(token): 1 for token in range(301)}}, "logit_bias"),
        ({"logit_bias": [5]}, "logit_bias"),
        ({"logprobs": 0}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),  # without logprobs
        ({"echo": True}, "echo"),  # of the other page
        ({"tools": [{}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"store": True}, "store"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"best_of": 1}, "best_of"),  # of the other page
        ({"prompt": "a"}, "prompt"),
        ({"typo": 1}, "typo"),
        ({"top_k": -2}, "top_k"),
        ({"stop_token_ids": [5]}, "stop_token_ids"),
        ({"add_generation_prompt": "no"}, "add_generation_prompt"),
        ({"user": 5}, "user"),
        ({"max_tokens": 3, "max_completion_tokens": 3}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"seed": 2**63}, "seed"),
        ({"n": 0}, "n"),
        ({"stop": ["a", 1]}, "stop[1]"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"messages": []}, "messages"),
        ({"messages": {"role": "user"}}, "messages"),
        ({"messages": ["a"]}, "messages[0]"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "tool", "content": "a", "tool_call_id": "1"}]}, "messages[0].tool_call_id"),
    ],
    ids=str,
)
def test_what_the_engine_does_not_have_is_refused_by_its_name(more: dict[str, object], param: str) -> None:
    with pytest.raises(errors.FieldInvalidError) as refused:
        chat_request({**CHAT, **more}, NO_HEADERS)
    assert error_body(refused.value)["error"]["param"] == param
    assert kind_of(refused.value).status == 400


@pytest.mark.parametrize(
    "more",
    [
        {"echo": 1},
        {"echo": True, "logprobs": 0},
        {"suffix": "a"},
        {"logprobs": True},
        {"logprobs": 21},
        {"best_of": 2},
        {"add_generation_prompt": False},
        {"messages": []},
        {"echo": True, "prompt": "x" * 3_000_000, "n": 2},
    ],
    ids=str,
)
def test_what_texts_do_not_have_is_refused_by_its_name(more: dict[str, object]) -> None:
    with pytest.raises(errors.FieldInvalidError) as refused:
        text_request({"prompt": "a", **more}, NO_HEADERS)
    assert refused.value.field == next(iter(more))


def test_what_says_how_tokens_are_chosen_and_told_arrives() -> None:
    body = {
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "presence_penalty": -2,
        "frequency_penalty": 2,
        "logit_bias": {"7": -100, "5": 1.5},
        "ignore_eos": True,
    }
    wanted = GenerationOptions(
        wait=NOT_WAITING,
        min_p=0.1,
        repetition_penalty=1.2,
        presence_penalty=-2.0,
        frequency_penalty=2.0,
        logit_bias=((5, 1.5), (7, -100.0)),
        ignore_eos=True,
    )
    assert text_request({"prompt": "a", **body}, NO_HEADERS).options == wanted
    assert chat_request({**CHAT, **body}, NO_HEADERS).options == wanted


def test_the_pages_ask_for_log_probabilities_in_their_own_ways() -> None:
    assert chat_request({**CHAT, "logprobs": True}, NO_HEADERS).options.top_logprobs == 0
    assert chat_request({**CHAT, "logprobs": True, "top_logprobs": 20}, NO_HEADERS).options.top_logprobs == 20
    assert chat_request({**CHAT, "logprobs": False}, NO_HEADERS).options.top_logprobs is None
    assert text_request({"prompt": "a", "logprobs": 0}, NO_HEADERS).options.top_logprobs == 0
    assert text_request({"prompt": "a", "logprobs": 5}, NO_HEADERS).options.top_logprobs == 5
    assert text_request({"prompt": "a", "logprobs": None}, NO_HEADERS).options.top_logprobs is None


def test_every_kind_of_error_has_a_status_and_only_what_passes_by_itself_or_is_our_fault_is_5xx() -> None:
    kinds = [kind for kind in errors.TidemillError.__subclasses__() if kind is not errors.CannotStartError]
    assert {kind for kind in kinds if kind_of(kind()).status >= 500} == {
        errors.UnavailableError,
        errors.DeadlineExceededError,
        errors.InternalError,
    }
    assert {kind.status for kind in KINDS.values() if kind.status >= 500} == {500, 503}


def test_only_where_waiting_helps_is_the_time_said_in_whole_seconds() -> None:
    cold = error_response(errors.ModelColdError(retry_after_seconds=0.2))
    assert (cold.status_code, cold.headers["retry-after"], cold.headers["x-should-retry"]) == (503, "1", "true")
    full = error_response(errors.QueueFullError(retry_after_seconds=1.2))
    assert (full.status_code, full.headers["retry-after"]) == (429, "2")
    waited = error_response(errors.WaitExceededError())
    assert (waited.status_code, waited.headers["x-should-retry"]) == (503, "false")
    assert "retry-after" not in waited.headers


def test_a_refusal_says_what_helps_at_this_door() -> None:
    def told(error: errors.TidemillError) -> dict[str, str]:
        body: dict[str, str] = error_body(error)["error"]
        return body

    assert "--auto-session" in told(errors.NoSessionError())["message"]
    assert "x-tidemill-wait" in told(errors.ModelColdError())["message"]
    assert told(errors.ModelNotFoundError())["param"] == "model"
