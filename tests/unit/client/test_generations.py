"""Generations through the blocking client."""

import io
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace

import grpc
import pytest

import tidemill
from tests.unit.client.mill import Hold, Mill, Refusal, Skip, broken_end, keep_alive
from tidemill.plans import answers, following
from tidemill.plans.answers import Pace


@pytest.fixture(autouse=True)
def _open_session(client: tidemill.Client) -> None:
    client.start_session()


def test_a_prompt_streams_its_text_and_ends_with_usage(client: tidemill.Client) -> None:
    stream = client.complete_prompt("hello there")
    assert (stream.finish_reason, stream.usage) == ("", None)
    assert list(stream) == ["You", " said:", " hello", " there"]
    assert stream.text == "You said: hello there"
    assert stream.finish_reason == "stop"
    assert stream.usage is not None
    assert stream.usage.completion_tokens == 4
    assert stream.usage.time_to_first_token == timedelta(milliseconds=40)


def test_the_defaults_are_those_of_the_old_service(client: tidemill.Client, mill: Mill) -> None:
    client.complete_prompt("hello", stream=False)
    options = mill.requests["Complete"][-1].options
    assert options.max_tokens == 300
    assert options.sampling.temperature == pytest.approx(0.5)
    assert options.sampling.top_p == pytest.approx(0.9)
    assert not options.sampling.HasField("seed")
    assert not options.sampling.HasField("top_k")


def test_every_option_reaches_the_server(client: tidemill.Client, mill: Mill) -> None:
    client.complete_prompt(
        "hello", 7, 0.25, 0.75, stream=False, model="tide-nano", session="sessions/1", stop="END", seed=0, top_k=3,
        fail_fast=True, max_wait=timedelta(seconds=2),
    )  # fmt: skip
    request = mill.requests["Complete"][-1]
    assert (request.model, request.session) == ("tide-nano", "sessions/1")
    assert (request.options.max_tokens, list(request.options.stop)) == (7, ["END"])
    assert (request.options.sampling.temperature, request.options.sampling.top_p) == (0.25, 0.75)
    assert (request.options.sampling.seed, request.options.sampling.top_k) == (0, 3)
    assert request.options.sampling.HasField("seed")
    assert (request.options.wait.fail_fast, request.options.wait.max_wait.seconds) == (True, 2)
    assert request.request_id


def test_none_leaves_the_choice_to_the_model(client: tidemill.Client, mill: Mill) -> None:
    client.complete_prompt("hello", None, None, None, stream=False)
    options = mill.requests["Complete"][-1].options
    assert not options.HasField("max_tokens")
    assert not options.sampling.HasField("temperature")


@pytest.mark.parametrize("method", ["complete_prompt", "complete", "complete_chat", "complete_batch"])
def test_an_unknown_parameter_is_named_with_the_method_that_lacks_it(client: tidemill.Client, method: str) -> None:
    with pytest.raises(tidemill.FieldInvalidError, match=rf"^{method}\(\) has no parameter 'top_q'\.$") as caught:
        getattr(client, method)([], top_q=1)
    assert caught.value.field == "top_q"


def test_without_stream_a_prompt_gives_its_text(client: tidemill.Client) -> None:
    assert client.complete_prompt("hello", stream=False) == "You said: hello"


def test_a_chat_is_sent_as_messages_with_the_named_template(client: tidemill.Client, mill: Mill) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    text = client.complete_chat(messages, False, "plain", stream=False)
    assert text == "You said: system:Be brief.|user:hi"
    chat = mill.requests["Complete"][-1].input.chat
    assert (chat.template, chat.add_generation_prompt) == ("plain", False)


def test_a_generation_prompt_is_added_by_default(client: tidemill.Client, mill: Mill) -> None:
    client.complete_chat([{"role": "user", "content": "hi"}], stream=False)
    assert mill.requests["Complete"][-1].input.chat.add_generation_prompt is True


def test_a_list_of_prompts_gives_texts_in_its_order(client: tidemill.Client) -> None:
    assert client.complete_prompt(["one", "two", "three"], stream=False) == [
        "You said: one",
        "You said: two",
        "You said: three",
    ]


def test_a_list_of_chats_gives_texts_in_its_order(client: tidemill.Client) -> None:
    chats = [[{"role": "user", "content": word}] for word in ("one", "two")]
    assert client.complete_chat(chats, stream=False) == ["You said: user:one", "You said: user:two"]


def test_no_prompts_give_no_texts(client: tidemill.Client, mill: Mill) -> None:
    assert client.complete_prompt([], stream=False) == []
    assert mill.requests["GenerateBatch"] == []


def test_a_long_list_goes_in_several_calls_and_its_seeds_go_on(client: tidemill.Client, mill: Mill) -> None:
    prompts = [str(number) for number in range(300)]
    assert client.complete_prompt(prompts, stream=False, seed=10) == [f"You said: {prompt}" for prompt in prompts]
    first, second = mill.requests["GenerateBatch"]
    assert (len(first.inputs), len(second.inputs)) == (256, 44)
    assert (first.options.sampling.seed, second.options.sampling.seed) == (10, 266)


def test_a_list_of_long_prompts_goes_in_calls_that_a_server_takes(client: tidemill.Client, mill: Mill) -> None:
    prompts = [letter * (1 << 20) for letter in "abcde"]
    assert client.complete_prompt(prompts, stream=False) == [f"You said: {prompt}" for prompt in prompts]
    assert [len(request.inputs) for request in mill.requests["GenerateBatch"]] == [2, 2, 1]
    assert all(request.ByteSize() < 4 << 20 for request in mill.requests["GenerateBatch"])


@pytest.mark.parametrize("stream_of", ["complete_prompt", "complete_chat"])
def test_a_list_cannot_be_streamed(client: tidemill.Client, stream_of: str) -> None:
    several = ["one", "two"] if stream_of == "complete_prompt" else [[{"role": "user", "content": "one"}]]
    with pytest.raises(tidemill.FieldInvalidError, match="stream=False"):
        getattr(client, stream_of)(several)


def test_a_failed_input_of_a_list_raises_with_the_texts_of_the_others(client: tidemill.Client, mill: Mill) -> None:
    mill.script("bad", "half", broken_end("REPLICA_LOST", "The replica was lost."))
    with pytest.raises(tidemill.BatchError, match="1 of 3 inputs failed; input 1: The replica was lost") as caught:
        client.complete_prompt(["one", "bad", "three"], stream=False)
    assert caught.value.texts == ["You said: one", "half", "You said: three"]
    assert isinstance(caught.value.failures[1], tidemill.ReplicaLostError)
    assert caught.value.reason == "REPLICA_LOST"


def test_a_broken_batch_call_keeps_the_results_that_came(client: tidemill.Client, mill: Mill) -> None:
    mill.script("bad", Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING"))
    first, second = client.complete_batch(["bad", "two"])
    assert isinstance(first.error, tidemill.DrainingError)
    assert (second.text, second.error) == ("You said: two", None)


def test_a_batch_that_is_refused_as_a_whole_raises(client: tidemill.Client, mill: Mill) -> None:
    client.stop_session()
    with pytest.raises(tidemill.NoSessionError):
        client.complete_batch(["one", "two"])


def test_complete_returns_text_reason_and_usage(client: tidemill.Client) -> None:
    found = client.complete("hello there", max_tokens=2)
    assert (found.text, found.finish_reason) == ("You said:", "length")
    assert found.usage is not None
    assert found.usage.prompt_tokens == 5


def test_keep_alives_are_invisible_and_reported(client: tidemill.Client, mill: Mill) -> None:
    mill.script("wake", keep_alive("QUEUED", 0), keep_alive("STARTING", 0.5), "up", keep_alive(), " now")
    seen: list[tidemill.Progress] = []
    assert list(client.complete_prompt("wake", on_progress=seen.append)) == ["up", " now"]
    assert [one.state for one in seen] == ["queued", "starting", "starting"]
    assert (seen[1].phase, seen[1].fraction) == ("loading", 0.5)


def test_an_error_in_mid_stream_comes_after_the_text(client: tidemill.Client, mill: Mill) -> None:
    mill.script("cut", "some", " text", broken_end("REPLICA_LOST", "The replica was lost.", "input"))
    stream = client.complete_prompt("cut")
    pieces = []
    with pytest.raises(tidemill.ReplicaLostError, match="The replica was lost") as caught:
        pieces.extend(stream)
    assert pieces == ["some", " text"]
    assert (caught.value.partial_text, caught.value.field) == ("some text", "input")
    assert caught.value.request_id == mill.requests["Generate"][-1].request_id
    assert stream.finish_reason == "error"


def test_a_server_that_is_gone_in_mid_stream_raises_after_the_text(
    client: tidemill.Client, mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LONGEST_ABSENCE", 0.5)
    hold = Hold()
    mill.script("cut", "some", hold, " more")
    stream = client.complete_prompt("cut")
    assert next(stream) == "some"
    hold.reached.wait(60)
    mill.stop()
    with pytest.raises(tidemill.TidemillError) as caught:
        next(stream)
    assert caught.value.partial_text == "some"
    assert caught.value.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_an_error_without_stream_carries_the_text_until_there(client: tidemill.Client, mill: Mill) -> None:
    mill.script("cut", "some", broken_end("REPLICA_LOST", "The replica was lost."))
    with pytest.raises(tidemill.ReplicaLostError) as caught:
        client.complete_prompt("cut", stream=False)
    assert caught.value.partial_text == "some"


def test_a_lost_message_is_noticed(client: tidemill.Client, mill: Mill) -> None:
    mill.script("gap", "some", Skip(), "text")
    with pytest.raises(tidemill.ProtocolError, match="message 3 where 2 was due"):
        list(client.complete_prompt("gap"))


def test_a_refusal_before_the_text_is_typed_and_names_the_field(client: tidemill.Client, mill: Mill) -> None:
    mill.fail_next(
        "Generate", Refusal(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", "top_p is 7.", "options.top_p")
    )
    with pytest.raises(tidemill.FieldInvalidError, match=r"top_p is 7\.") as caught:
        list(client.complete_prompt("hello", top_p=7))
    assert (caught.value.field, caught.value.reason) == ("options.top_p", "FIELD_INVALID")


def test_a_generation_is_not_repeated_by_itself(client: tidemill.Client, mill: Mill) -> None:
    mill.fail_next("Generate", Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING"))
    with pytest.raises(tidemill.DrainingError):
        list(client.complete_prompt("hello"))
    assert len(mill.requests["Generate"]) == 1


def test_closing_a_stream_cancels_it_on_the_server(client: tidemill.Client, mill: Mill) -> None:
    hold = Hold()
    mill.script("long", "some", hold, " more")
    with client.complete_prompt("long") as stream:
        assert next(stream) == "some"
        assert hold.reached.wait(60)
    assert hold.abandoned.wait(60)
    assert list(stream) == []
    assert (stream.finish_reason, stream.text) == ("cancelled", "some")


def test_a_stream_can_be_closed_from_another_thread(client: tidemill.Client, mill: Mill) -> None:
    hold = Hold()
    mill.script("long", "some", hold, " more")
    stream = client.complete_prompt("long")
    assert next(stream) == "some"
    closer = threading.Thread(target=lambda: hold.reached.wait(60) and stream.close())
    closer.start()
    assert list(stream) == []
    closer.join()
    assert stream.finish_reason == "cancelled"


def test_a_stream_that_was_closed_before_its_first_item_ends(client: tidemill.Client) -> None:
    stream = client.complete_prompt("hello")
    stream.close()
    assert list(stream) == []
    assert stream.finish_reason == "cancelled"


def test_an_exception_in_the_callback_ends_the_call(client: tidemill.Client, mill: Mill) -> None:
    hold = Hold()
    mill.script("wake", keep_alive(), hold, "up")

    def interrupt(_: tidemill.Progress) -> None:
        hold.reached.wait(60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(client.complete_prompt("wake", on_progress=interrupt))
    assert hold.abandoned.wait(60)


def test_a_timeout_ends_the_generation(client: tidemill.Client, mill: Mill) -> None:
    mill.script("long", "some", Hold(), " more")
    pieces: list[str] = []
    with pytest.raises(tidemill.DeadlineExceededError) as caught:
        pieces.extend(client.complete_prompt("long", timeout=0.2))
    assert caught.value.partial_text == "".join(pieces)


def test_a_generation_whose_time_is_over_leaves_its_text(client: tidemill.Client, mill: Mill) -> None:
    mill.script("long", "some", Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"))
    with pytest.raises(tidemill.DeadlineExceededError) as caught:
        list(client.complete_prompt("long"))
    assert caught.value.partial_text == "some"


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        (["hello"], "[0]"),
        ([{"role": "user", "content": "hi"}, {"role": "user"}], "[1]"),
        ([{"role": "user", "content": 7}], "[0].content"),
        ([{"role": "user", "content": None}], "[0].content"),
        ([{"role": b"user", "content": "hi"}], "[0].role"),
        ("hello", ""),
        (None, ""),
        (3, ""),
    ],
)
def test_a_message_that_is_none_is_named(client: tidemill.Client, messages: list, field: str) -> None:
    for stream in (True, False):
        with pytest.raises(tidemill.FieldInvalidError) as caught:
            client.complete_chat(messages, stream=stream)
        assert caught.value.field == f"input.chat.messages{field}"


def test_a_key_that_no_message_has_is_named(client: tidemill.Client) -> None:
    with pytest.raises(tidemill.FieldInvalidError, match=r"messages\[0\] has 'name' besides role and content"):
        client.complete([{"role": "user", "content": "hi", "name": "Ada"}])


@pytest.mark.parametrize("prompt", [None, 3, b"x", {"a": 1}])
def test_a_prompt_that_is_no_text_is_named(client: tidemill.Client, mill: Mill, prompt: object) -> None:
    for ask in (
        lambda: client.complete_prompt(prompt),  # type: ignore[call-overload]
        lambda: client.complete_prompt(prompt, stream=False),  # type: ignore[call-overload]
        lambda: client.complete(prompt),  # type: ignore[arg-type]
    ):
        with pytest.raises(tidemill.FieldInvalidError, match="must be a str") as caught:
            ask()
        assert caught.value.field == "input.prompt"
    assert mill.requests["Generate"] == []


def test_an_input_of_a_list_is_named_by_its_place(client: tidemill.Client) -> None:
    with pytest.raises(tidemill.FieldInvalidError) as caught:
        client.complete_prompt(["one", None], stream=False)  # type: ignore[list-item]
    assert caught.value.field == "inputs[1].prompt"
    with pytest.raises(tidemill.FieldInvalidError) as caught:
        client.complete_batch(["one", [{"role": "user", "content": 3}]])  # type: ignore[list-item]
    assert caught.value.field == "inputs[1].chat.messages[0].content"
    with pytest.raises(tidemill.FieldInvalidError, match="sources"):
        client.complete_batch("one")


def test_an_input_over_a_mebibyte_is_refused_before_the_call_with_both_numbers(
    client: tidemill.Client, mill: Mill
) -> None:
    fits = "é" * (1 << 19)
    assert client.complete_prompt(fits, stream=False) == f"You said: {fits}"
    with pytest.raises(tidemill.FieldInvalidError, match=r"1048578 bytes.*1048576") as caught:
        client.complete_prompt(fits + "é")
    assert caught.value.field == "input.prompt"
    with pytest.raises(tidemill.FieldInvalidError, match=r"1048577 bytes.*1048576") as caught:
        client.complete_chat([{"role": "user", "content": fits}, {"role": "user", "content": "a"}])
    assert caught.value.field == "input.chat.messages"
    assert len(mill.requests["Complete"]) == 1


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("max_tokens", "many", "options.max_tokens"),
        ("max_tokens", 2**40, "options.max_tokens"),
        ("seed", 2**70, "options.sampling.seed"),
        ("temperature", "hot", "options.sampling.temperature"),
        ("max_wait", "long", "options.wait.max_wait"),
        ("stop", 3, "options.stop"),
        ("model", 3, "model"),
        ("timeout", "a", "timeout"),
        ("on_progress", "a", "on_progress"),
    ],
)
def test_a_parameter_of_a_wrong_type_is_named_as_the_server_would(
    client: tidemill.Client, name: str, value: object, field: str
) -> None:
    with pytest.raises(tidemill.FieldInvalidError, match=name) as caught:
        client.complete_prompt("hello", stream=False, **{name: value})  # type: ignore[call-overload]
    assert caught.value.field == field


def test_text_that_is_not_unicode_is_refused_before_the_call(client: tidemill.Client, mill: Mill) -> None:
    with pytest.raises(tidemill.FieldInvalidError, match="prompt"):
        client.complete_prompt("\ud800", stream=False)
    assert mill.requests["Generate"] == []


def test_print_prompt_prints_as_it_comes_and_returns_speed_and_usage(
    client: tidemill.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = client.print_prompt(client.complete_prompt("hello"))
    assert capsys.readouterr().out == "You said: hello\n"
    assert printed.text == "You said: hello"
    assert printed.time_to_first_token is not None
    assert printed.time_to_first_token > timedelta(0)
    assert printed.finish_reason == "stop"
    assert printed.usage is not None
    assert printed.usage.completion_tokens == 3


def test_a_speed_is_given_only_where_enough_tokens_came_after_the_first_piece(
    client: tidemill.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "time", SimpleNamespace(monotonic=itertools.count(step=0.5).__next__))
    short = client.print_prompt(client.complete_prompt("a few words"), io.StringIO())
    assert short.tokens_per_second is None
    long = client.print_prompt(client.complete_prompt("word " * 40), io.StringIO())
    assert long.tokens_per_second == 2.0


def test_the_first_piece_and_the_wait_before_it_do_not_count_in_the_speed() -> None:
    pace = Pace()
    pace.add(50, 10.0)
    assert pace.tokens_per_second is None
    pace.add(15, 10.5)
    assert pace.tokens_per_second is None
    pace.add(5, 12.0)
    assert pace.tokens_per_second == 10.0


def test_pieces_that_came_in_one_burst_give_no_speed() -> None:
    pace = Pace()
    for moment in (10.0, 10.02, 10.05):
        pace.add(20, moment)
    assert pace.tokens_per_second is None


def test_print_prompt_takes_any_iterator_of_text() -> None:
    file = io.StringIO()
    printed = tidemill.Client.print_prompt(iter(["a", "b"]), file)
    assert (file.getvalue(), printed.text, printed.usage) == ("ab\n", "ab", None)


def test_32_threads_share_one_client(client: tidemill.Client) -> None:
    def ask(number: int) -> bool:
        words = [f"{number}-{word}" for word in range(20)]
        stream = client.complete_prompt(" ".join(words), stream=True)
        return list(stream) == ["You", " said:", *(f" {word}" for word in words)] and stream.finish_reason == "stop"

    with ThreadPoolExecutor(32) as threads:
        assert all(threads.map(ask, range(96)))
