"""The demo model's training text: what patterns become, and that it stays apart from every test."""

import random

import pytest


def test_a_pattern_becomes_each_of_its_sentences() -> None:
    from grammar import expand

    rng = random.Random(1)
    asked = {expand("{what|which} port is {grpc|http} on{|, please} ?", rng) for _ in range(300)}
    assert asked == {
        f"{word} port is {name} on{end}?"
        for word in ("what", "which")
        for name in ("grpc", "http")
        for end in ("", ", please")
    }


def test_choices_in_choices_are_resolved() -> None:
    from grammar import expand

    rng = random.Random(1)
    assert {expand("{a {b|c}|d}", rng) for _ in range(100)} == {"a b", "a c", "d"}


def test_a_pattern_with_a_name_for_every_how_to_question_holds_no_name_afterwards() -> None:
    from grammar import expand

    rng = random.Random(1)
    asked = {expand("{HOW} stop the server", rng) for _ in range(200)}
    assert len(asked) > 10
    assert all(question.endswith("stop the server") and "{" not in question for question in asked)


def test_a_pattern_kept_out_is_not_a_training_pattern_even_when_a_term_stands_for_it(tmp_path) -> None:
    from grammar import read_intents

    (tmp_path / "money.txt").write_text(
        "= A hold is set aside.\n? a hold\nwhy a hold\n! what is a hold\n! {DEFINE} {a hold}\n"
    )
    (intent,) = read_intents(tmp_path)
    assert intent.kept_out == ("what is a hold", "{DEFINE} {a hold}")
    assert "why a hold" in intent.patterns
    assert len(intent.patterns) == 6
    assert not set(intent.kept_out) & set(intent.patterns)


def test_a_block_without_a_question_is_refused(tmp_path) -> None:
    from grammar import read_intents

    (tmp_path / "money.txt").write_text("= An answer to nothing.\n")
    with pytest.raises(ValueError, match=r"money\.txt: a block needs an answer and a question"):
        read_intents(tmp_path)


def test_every_intent_can_be_asked_in_training() -> None:
    from grammar import read_intents

    assert [intent.answer for intent in read_intents() if not intent.patterns] == []


def test_generated_text_shares_no_five_gram_with_the_test_set() -> None:
    from grammar import read_intents
    from overlap import offending
    from write_text import Writer

    writer = Writer(read_intents(), seed=5)
    texts = [message["content"] for _ in range(400) for message in writer.conversation()]
    assert len(texts) > 800
    assert offending(texts) == []


def test_no_training_question_has_the_words_of_a_development_question() -> None:
    from grammar import read_intents
    from overlap import words
    from write_text import Writer, dev_conversations

    intents = read_intents()
    writer = Writer(intents, seed=5)
    asked = {tuple(words(writer.exchange()[0])) for _ in range(1000)}
    assert not asked & {tuple(words(messages[0]["content"])) for messages in dev_conversations(intents)}


def test_one_seed_writes_one_text() -> None:
    from grammar import read_intents
    from write_text import Writer

    intents = read_intents()
    first, second = Writer(intents, seed=9), Writer(intents, seed=9)
    assert [first.conversation() for _ in range(50)] == [second.conversation() for _ in range(50)]


def test_the_overlap_check_finds_a_question_of_the_test_set(tmp_path) -> None:
    from overlap import held_out_grams, shares_five_gram

    test_set = tmp_path / "test_set.toml"
    test_set.write_text(
        'names = ["tidemill", "session", "start"]\n'
        'about = [{ question = "Does the big wheel ever turn at night?" }]\n'
        'unknown = [{ question = "Who sings?" }]\n'
    )
    held_out = held_out_grams(test_set)
    assert shares_five_gram("say, DOES the big wheel ever stop?", held_out)
    assert shares_five_gram("who sings", held_out)
    assert not shares_five_gram("does the big wheel turn", held_out)
