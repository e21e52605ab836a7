"""How tokens are chosen and how likely they were, through real servers: the `openai` package, gRPC, the client."""

import math

import grpc
import openai
import pytest

import tidemill
from tests.integration.api.conftest import MODEL, Wire
from tests.integration.api.test_openai_package import GREEDY, HELLO, client_of
from tests.server_process import ServerProcess
from tidemill.v1 import inference_pb2

PROMPT = "once upon a time"


@pytest.fixture
def paid(server: ServerProcess, wire: Wire):
    wire.start()
    with client_of(server) as client:
        yield client


@pytest.fixture
def client(server: ServerProcess, wire: Wire):
    wire.start()
    with tidemill.Client(server.api_key, target=server.grpc, model=MODEL) as client:
        yield client


def test_a_chats_log_probabilities_are_the_same_whole_and_streamed(paid: openai.OpenAI) -> None:
    asked: dict = {"messages": HELLO, "logprobs": True, "top_logprobs": 3, **GREEDY}
    whole = paid.chat.completions.create(**asked)
    assert whole.usage is not None
    assert whole.choices[0].logprobs is not None
    content = whole.choices[0].logprobs.content or []
    assert len(content) == whole.usage.completion_tokens
    for each in content:
        assert len(each.top_logprobs) == 3
        assert (each.token, each.logprob) == (each.top_logprobs[0].token, each.top_logprobs[0].logprob)
        assert bytes(each.bytes or []).decode(errors="replace") == each.token
        assert sum(math.exp(top.logprob) for top in each.top_logprobs) <= 1.001
    chunks = list(paid.chat.completions.create(stream=True, **asked))
    streamed = [
        each
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs is not None
        for each in choice.logprobs.content or []
    ]
    assert [each.token for each in streamed] == [each.token for each in content]
    assert [each.logprob for each in streamed] == pytest.approx([each.logprob for each in content], abs=1e-4)


def test_a_texts_log_probabilities_have_its_own_shape_whole_and_streamed(paid: openai.OpenAI) -> None:
    asked: dict = {"prompt": PROMPT, "logprobs": 2, **GREEDY}
    whole = paid.completions.create(**asked).choices[0]
    assert whole.logprobs is not None
    assert whole.logprobs.tokens is not None
    assert whole.logprobs.top_logprobs is not None
    assert whole.logprobs.text_offset is not None
    assert "".join(whole.logprobs.tokens).startswith(whole.text)
    assert [len(each) for each in whole.logprobs.top_logprobs] == [2] * len(whole.logprobs.tokens)
    for token, offset in zip(whole.logprobs.tokens[:-1], whole.logprobs.text_offset, strict=False):
        assert whole.text[offset : offset + len(token)] == token
    chunks = [chunk.choices[0].logprobs for chunk in paid.completions.create(stream=True, **asked)]
    tokens = [token for found in chunks if found is not None for token in found.tokens or []]
    offsets = [offset for found in chunks if found is not None for offset in found.text_offset or []]
    assert (tokens, offsets) == (whole.logprobs.tokens, whole.logprobs.text_offset)
    assert paid.completions.create(prompt=PROMPT, **GREEDY).choices[0].logprobs is None


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_begins_each_answer_with_its_prompt(paid: openai.OpenAI, stream: bool) -> None:
    plain = paid.completions.create(prompt=["a mill", "a ship"], **GREEDY)
    asked: dict = {"prompt": ["a mill", "a ship"], "n": 2, "echo": True, **GREEDY}
    texts = dict.fromkeys(range(4), "")
    if stream:
        for chunk in paid.completions.create(stream=True, **asked):
            texts[chunk.choices[0].index] += chunk.choices[0].text
    else:
        texts = {choice.index: choice.text for choice in paid.completions.create(**asked).choices}
    mill, ship = ("a mill" + plain.choices[0].text, "a ship" + plain.choices[1].text)
    assert texts == {0: mill, 1: mill, 2: ship, 3: ship}


def test_what_is_sent_whole_has_a_bounded_number_of_log_probabilities_and_a_stream_any(paid: openai.OpenAI) -> None:
    asked: dict = {**GREEDY, "prompt": PROMPT, "logprobs": 20, "max_tokens": 900, "n": 2}
    with pytest.raises(openai.BadRequestError) as refused:
        paid.completions.create(**asked)
    assert refused.value.param == "logprobs"
    stream = paid.completions.create(stream=True, **asked)
    assert next(iter(stream)).choices
    stream.close()


def test_a_bias_and_penalties_change_what_is_said(paid: openai.OpenAI) -> None:
    asked: dict = {"prompt": PROMPT, **GREEDY, "max_tokens": 80}  # long enough to repeat itself
    on: dict = {"ignore_eos": True}
    plain = paid.completions.create(extra_body=on, **asked).choices[0]
    only = paid.completions.create(logit_bias={"70": 100}, logprobs=1, **asked).choices[0]
    assert only.logprobs is not None
    assert len(set(only.logprobs.tokens or [])) == 1
    assert min(only.logprobs.token_logprobs or []) < -1  # the model's own view of it
    varied = paid.completions.create(presence_penalty=2, frequency_penalty=2, extra_body=on, **asked).choices[0]
    again = paid.completions.create(extra_body={**on, "repetition_penalty": 10}, **asked).choices[0]
    assert plain.text != varied.text
    assert plain.text != again.text


def test_whatever_ends_an_answer_is_passed_over_on_request(paid: openai.OpenAI) -> None:
    asked: dict = {"prompt": PROMPT, **GREEDY, "max_tokens": 40, "logit_bias": {"2": 100}}  # 2 ends its answers
    ended = paid.completions.create(**asked)
    passed = paid.completions.create(extra_body={"ignore_eos": True}, **asked)
    assert ended.usage is not None
    assert passed.usage is not None
    assert (ended.choices[0].finish_reason, ended.usage.completion_tokens) == ("stop", 1)
    assert (passed.choices[0].finish_reason, passed.usage.completion_tokens) == ("length", 40)


def test_several_answers_to_each_input_are_seeded_by_their_place_and_count_the_prompt_once(
    client: tidemill.Client,
) -> None:
    sampled: dict = {"max_tokens": 10, "temperature": 1.5, "top_p": 1.0, "top_k": 0}
    found = client.complete_batch([PROMPT, "a ship"], seed=5, n=3, **sampled)
    assert len(found) == 6
    alone = [client.complete(PROMPT if place < 3 else "a ship", seed=5 + place, **sampled) for place in range(6)]
    assert [each.text for each in found] == [each.text for each in alone]
    assert len({each.text for each in found}) > 2
    counted = [each.usage.prompt_tokens for each in found if each.usage]
    assert [bool(count) for count in counted] == [True, False, False, True, False, False]
    assert [counted[0], counted[3]] == [alone[place].usage.prompt_tokens for place in (0, 3)]  # type: ignore[union-attr]


def test_log_probabilities_of_a_stream_and_of_a_batch_are_those_of_the_whole(client: tidemill.Client) -> None:
    asked: dict = {"max_tokens": 12, "temperature": 0.0, "top_logprobs": 4}
    whole = client.complete(PROMPT, **asked)
    assert whole.usage is not None
    assert len(whole.logprobs) == whole.usage.completion_tokens
    assert all(each.chosen == each.top[0] and len(each.top) == 4 for each in whole.logprobs)
    stream = client.complete_prompt(PROMPT, **asked)
    assert "".join(stream) == whole.text
    (batched,) = client.complete_batch([PROMPT], **asked)
    for found in (stream.logprobs, batched.logprobs):
        assert [each.chosen.token_id for each in found] == [each.chosen.token_id for each in whole.logprobs]
    assert client.complete(PROMPT, max_tokens=3, temperature=0.0).logprobs == ()


def test_a_stream_that_is_attached_again_has_its_log_probabilities_again(wire: Wire) -> None:
    wire.start()
    options = inference_pb2.GenerationOptions(
        max_tokens=9, top_logprobs=2, sampling=inference_pb2.Sampling(temperature=0)
    )
    first = [each for each in wire.generate(request_id="lp", options=options) if not each.HasField("keep_alive")]
    again = list(wire.generate(request_id="lp", options=options, resume_after=2))
    assert again == first[2:]
    assert sum(len(each.delta.logprobs) for each in first) == first[-1].end.usage.completion_tokens


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"min_p": 2.0}, "options.sampling.min_p"),
        ({"repetition_penalty": 0.0}, "options.sampling.repetition_penalty"),
        ({"presence_penalty": -3.0}, "options.sampling.presence_penalty"),
        ({"frequency_penalty": math.nan}, "options.sampling.frequency_penalty"),
        ({"logit_bias": {5: -200.0}}, "options.sampling.logit_bias[5]"),
        ({"logit_bias": {99_999: 1.0}}, "options.sampling.logit_bias[99999]"),
        ({"logit_bias": dict.fromkeys(range(301), 1.0)}, "options.sampling.logit_bias"),
        ({"logit_bias": {"a": 1.0}}, "options.sampling.logit_bias"),
        ({"top_logprobs": 21}, "options.top_logprobs"),
    ],
    ids=str,
)
def test_a_wish_that_cannot_be_is_refused_by_its_field(client: tidemill.Client, options: dict, field: str) -> None:
    with pytest.raises(tidemill.FieldInvalidError) as refused:
        client.complete(PROMPT, **options)
    assert refused.value.field == field


@pytest.mark.parametrize("n", [0, 257])
def test_a_number_of_answers_that_cannot_be_is_refused(client: tidemill.Client, n: int) -> None:
    with pytest.raises(tidemill.FieldInvalidError) as refused:
        client.complete_batch([PROMPT], n=n)
    assert refused.value.field == "n"


@pytest.mark.parametrize("num_answers", [-1, 129])
def test_grpc_refuses_more_answers_than_a_batch_may_have(wire: Wire, num_answers: int) -> None:
    wire.start()
    inputs = [inference_pb2.Input(prompt="a")] * 2
    request = inference_pb2.GenerateBatchRequest(model=MODEL, inputs=inputs, num_answers=num_answers)
    with pytest.raises(grpc.RpcError, match="256 in all") as refused:
        list(wire.inference.GenerateBatch(request, metadata=wire.metadata))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
