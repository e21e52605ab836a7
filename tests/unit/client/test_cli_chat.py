"""`tidemill chat`, in this process, against a mill in memory."""

import grpc

from tests.unit.client.mill import Mill, Refusal


def test_a_chat_sends_the_conversation_along_until_it_is_reset(tidemill, mill: Mill) -> None:
    result = tidemill("chat", "--system", "Be kind.", text="one\n\ntwo\n/reset\nthree\n/nonsense\n/exit\nnever\n")
    assert result.exit_code == 0
    asked = [[one.content for one in request.input.chat.messages] for request in mill.requests["Generate"]]
    assert asked[-1] == ["Be kind.", "three"]
    assert asked[-2] == ["Be kind.", "one", "You said: system:Be kind.|user:one", "two"]
    assert "never" not in str(asked)
    assert "/reset forgets" in result.stderr
    assert mill.sessions["sessions/1"].bill.final
    assert len(mill.sessions) == 1


def test_a_failed_question_does_not_end_the_chat_and_is_forgotten(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    mill.fail_next("Generate", Refusal(grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_EXCEEDED", "600 tokens, not 512."))
    result = tidemill("chat", text="long\nshort\n")
    assert result.exit_code == 1
    assert "600 tokens, not 512." in result.stderr
    assert [one.content for one in mill.requests["Generate"][-1].input.chat.messages] == ["short"]


def test_a_full_context_leaves_out_the_oldest_turns_and_says_so_once(tidemill, mill: Mill) -> None:
    refusal = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_EXCEEDED", "600 tokens, not 512.")
    tidemill("session", "start")
    mill.refuse_when(lambda request: refusal if len(request.input.chat.messages) > 4 else None)
    result = tidemill("chat", "--system", "Be kind.", text="one\ntwo\nthree\nfour\n")
    assert result.exit_code == 0
    asked = [[one.content for one in request.input.chat.messages] for request in mill.requests["Generate"]]
    assert (asked[-1][0], asked[-1][1], asked[-1][-1]) == ("Be kind.", "three", "four")
    assert result.stderr.count("oldest turns are left out") == 1
    assert "600 tokens" not in result.stderr


def test_turns_are_left_out_before_the_answer_has_no_room(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    mill.model.context_length = 40  # 30 tokens are kept; every prompt here counts 5, and an answer its words
    tidemill("chat", text="one\n" + "word " * 30 + "\nthree\n")
    asked = [[one.content for one in request.input.chat.messages] for request in mill.requests["Generate"]]
    assert [len(messages) for messages in asked] == [1, 3, 1]


def test_a_chat_says_when_an_answer_ended_early_and_when_it_forgets(tidemill) -> None:
    tidemill("session", "start")
    result = tidemill("chat", "--max-tokens", "1", text="one\n/reset\n")
    assert "The answer ended early" in result.stderr
    assert "The conversation is forgotten." in result.stderr


def test_a_chat_without_a_server_ends_with_its_exit_code(tidemill, mill: Mill) -> None:
    mill.stop()
    assert tidemill("chat", text="one\n").exit_code == 4


def test_a_chats_questions_all_carry_how_tokens_are_chosen_and_nothing_that_was_not_said(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    tidemill(
        "chat", "--seed", "0", "--top-k", "3", "--min-p", "0.25", "--repetition-penalty", "1.5", "--stop", "\n\n",
        "--presence-penalty", "-1", "--frequency-penalty", "2", "--logit-bias", "5=-100", "--exact", text="one\ntwo\n",
    )  # fmt: skip
    for request in mill.requests["Generate"][-2:]:
        options, sampling = request.options, request.options.sampling
        assert (sampling.seed, sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (0, 3, 0.25, 1.5)
        assert (sampling.presence_penalty, sampling.frequency_penalty) == (-1, 2)
        assert (dict(sampling.logit_bias), list(options.stop), options.exact) == ({5: -100}, ["\n\n"], True)
        assert sampling.HasField("seed")
    tidemill("chat", text="one\n")
    plain = mill.requests["Generate"][-1].options
    assert not any(plain.sampling.HasField(name) for name in ("seed", "top_k", "min_p", "repetition_penalty"))
    assert (list(plain.stop), plain.exact, dict(plain.sampling.logit_bias)) == ([], False, {})
    assert tidemill("chat", "--logit-bias", "five", text="").exit_code == 2
