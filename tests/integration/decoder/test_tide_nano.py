"""The demo model as it is shipped (int8, blocks of 32): company must not change an answer."""

import pytest

from tests.integration.decoder.models import running_engine
from tests.unit.decoder.recorder import hot, request
from tidemill_models.package import bundled_packages, load_package
from tidemill_models.tokenizer import Tokenizer

QUESTIONS = [
    "Hello!",
    "What is Tidemill?",
    "How do I start a session, and what does it cost me while it is open?",
    "What is two plus three?",
    "Who are you?",
    "the sea " * 60,
    "Tell me about reservations.",
    "Why does the model wake so slowly in the morning when nobody has used it all night long?",
    "a",
    "What happens when I forget to stop my session? " * 5,
]


@pytest.fixture(scope="module")
def nano():
    return next(folder for folder in bundled_packages() if folder.name == "tide-nano")


def answers(nano, sampling, **settings):
    """Each question's tokens; all are asked at once."""
    package = load_package(nano)
    tokenizer = Tokenizer.from_file(package.tokenizer_path)
    with running_engine(nano, num_waiting_places=len(QUESTIONS), **settings) as (engine, recorder):
        for i, question in enumerate(QUESTIONS):
            prompt = [package.decoder.bos_token_id, *tokenizer.encode(question)]
            engine.submit(request(i, prompt, 40, sampling=sampling))
        recorder.wait_for_ends(*range(len(QUESTIONS)))
    assert all(recorder.texts[i] == tokenizer.decode(recorder.tokens[i]) for i in range(len(QUESTIONS)))
    return [recorder.tokens[i] for i in range(len(QUESTIONS))]


@pytest.mark.parametrize(
    "sampling", [hot(None, temperature=0.0), hot(7, temperature=0.8, top_p=0.9)], ids=["greedy", "seed"]
)
def test_an_answer_is_the_same_alone_and_in_a_crowd(nano, sampling):
    alone = answers(nano, sampling, num_slots=1)
    assert alone == answers(nano, sampling, num_slots=8, max_chunk_length=16)
    assert alone == answers(nano, sampling, num_slots=5)
    assert len({tuple(answer) for answer in alone}) > 5
