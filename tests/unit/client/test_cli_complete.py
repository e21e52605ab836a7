"""`tidemill complete`, in this process, against a mill in memory."""

import json

from tests.unit.client.mill import PRICE, Mill, broken_end, keep_alive


def test_complete_prints_one_json_line(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    result = tidemill("complete", "hi", "--model", "tide-nano", "--max-tokens", "2", "--temperature", "0", "--json")
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    assert json.loads(line) == {
        "text": "You said:",
        "finish_reason": "length",
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "queue_seconds": 0.0,
            "time_to_first_token_seconds": 0.04,
            "total_seconds": 0.09,
            "cost_microcredits": 0,
            "cached_prompt_tokens": 0,
        },
    }
    request = mill.requests["Generate"][-1]
    assert (request.model, request.options.max_tokens) == ("tide-nano", 2)
    assert request.options.sampling.temperature == 0
    assert request.options.sampling.HasField("temperature")


def test_complete_sends_a_message_where_the_model_chats_and_the_text_where_it_is_raw(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    assert tidemill("complete", "hi", "--system", "Be kind.").stdout == "You said: system:Be kind.|user:hi\n"
    assert tidemill("complete", "hi", "--raw").stdout == "You said: hi\n"
    del mill.model.chat_templates[:]
    assert tidemill("complete", "hi").stdout == "You said: hi\n"
    assert tidemill("complete", "hi", "--system", "Be kind.").exit_code == 2


def test_complete_leaves_out_what_was_not_asked_for(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    tidemill("complete", "hi")
    options = mill.requests["Generate"][-1].options
    assert not options.HasField("max_tokens")
    assert not options.sampling.ListFields()
    tidemill(
        "complete", "hi", "--seed", "0", "--top-k", "4", "--top-p", "0.5", "--stop", "a", "--stop", "b",
        "--min-p", "0.25", "--repetition-penalty", "1.5", "--presence-penalty", "-1", "--frequency-penalty", "2",
        "--logit-bias", "5=-100", "--logit-bias", "7=1.5", "--ignore-eos", "--json", "--logprobs", "3",
    )  # fmt: skip
    options = mill.requests["Generate"][-1].options
    assert options.sampling.HasField("seed")
    assert (options.sampling.top_k, options.sampling.top_p, list(options.stop)) == (4, 0.5, ["a", "b"])
    assert (options.sampling.min_p, options.sampling.repetition_penalty) == (0.25, 1.5)
    assert (options.sampling.presence_penalty, options.sampling.frequency_penalty) == (-1, 2)
    assert dict(options.sampling.logit_bias) == {5: -100, 7: 1.5}
    assert (options.ignore_eos, options.top_logprobs) == (True, 3)
    assert not options.exact
    assert tidemill("complete", "hi", "--logprobs", "3").exit_code == 2
    assert tidemill("complete", "hi", "--logit-bias", "five").exit_code == 2


def test_complete_and_chat_ask_for_an_exact_answer(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    tidemill("complete", "hi", "--exact")
    assert mill.requests["Generate"][-1].options.exact
    tidemill("chat", "--exact", text="hi\n")
    assert mill.requests["Generate"][-1].options.exact


def test_complete_begins_with_the_prompt_where_it_goes_on_from_it(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    assert tidemill("complete", "hi", "--raw", "--echo").stdout == "hiYou said: hi\n"
    assert json.loads(tidemill("complete", "hi", "--raw", "--echo", "--json").stdout)["text"] == "hiYou said: hi"
    assert tidemill("complete", "hi", "--echo").exit_code == 2
    assert tidemill("complete", "hi", "--raw", "--echo", "--json", "--logprobs", "1").exit_code == 2


def test_complete_gives_several_answers_to_one_prompt(tidemill, mill: Mill) -> None:
    shown = tidemill("complete", "hi", "--raw", "--n", "2", "--seed", "4")
    assert shown.stdout == "You said: hi\n\nYou said: hi\n"
    assert "cost" in shown.stderr
    request = mill.requests["GenerateBatch"][-1]
    assert (request.num_answers, request.options.sampling.seed, len(request.inputs)) == (2, 4, 1)
    tidemill("session", "start")
    lines = tidemill("complete", "hi", "--n", "2", "--json").stdout.splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1]
    assert json.loads(lines[1])["text"] == "You said: user:hi"
    assert tidemill("complete", "hi", "--n", "0").exit_code == 2
    assert tidemill("complete", "hi", "--n", "1000").exit_code == 1


def test_complete_reads_the_prompt_from_standard_input(tidemill) -> None:
    tidemill("session", "start")
    assert tidemill("complete", "-", "--raw", text="from a pipe").stdout == "You said: from a pipe\n"


def test_complete_opens_a_session_when_none_is_open_and_shows_its_bill(tidemill, mill: Mill) -> None:
    result = tidemill("complete", "hi", "--raw", "--json")
    assert json.loads(result.stdout)["text"] == "You said: hi"
    assert result.stderr == f"sessions/1 of tide-nano cost 0.{3 * PRICE:06d} credits for 3 seconds.\n"
    assert mill.sessions["sessions/1"].bill.final


def test_complete_leaves_an_open_session_open(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    assert tidemill("complete", "hi").stderr == ""
    assert not mill.sessions["sessions/1"].bill.final


def test_a_session_that_complete_opened_is_stopped_when_the_answer_breaks(tidemill, mill: Mill) -> None:
    mill.script("cut", "some", broken_end("REPLICA_LOST", "The replica was lost."))
    result = tidemill("complete", "cut", "--raw")
    assert result.exit_code == 1
    assert result.stdout == "some"
    assert "Error: The replica was lost." in result.stderr
    assert mill.sessions["sessions/1"].bill.final


def test_without_a_session_and_told_not_to_open_one_it_says_what_to_do(tidemill) -> None:
    result = tidemill("complete", "hi", "--no-session")
    assert result.exit_code == 1
    assert "--no-session" in result.stderr
    assert result.stdout == ""


def test_an_empty_prompt_is_refused(tidemill) -> None:
    assert tidemill("complete", "").exit_code == 1


def test_an_answer_that_ended_early_says_so_beside_it(tidemill) -> None:
    tidemill("session", "start")
    assert tidemill("complete", "hi", "--max-tokens", "1").stderr == "The answer ended early: length.\n"


def test_waiting_shows_a_line_for_each_change(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    mill.script("hi", keep_alive("QUEUED", 0), keep_alive(), keep_alive(), "up")
    result = tidemill("complete", "hi", "--raw")
    assert result.stdout == "up\n"
    assert result.stderr == "tide-nano: loading\n"
