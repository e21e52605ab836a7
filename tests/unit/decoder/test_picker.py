"""One sequence's next token against a plain reference: changes of logits, the distribution, log-probabilities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.decoder.recorder import LIMITS, VOCAB_SIZE, open_letters, request
from tests.unit.decoder.sampling_reference import changed_logits, log_softmax, probabilities
from tidemill_serving.decoder.logit_changes import LogitChanges
from tidemill_serving.decoder.picker import LOWEST_LOGPROB, logprobs_of, pick_token
from tidemill_serving.decoder.sampler import draw_token, make_generator
from tidemill_serving.decoder.sequence import Sequence
from tidemill_serving.engine import Sampling

NUM_DRAWS = 2_000
RARE = 3 / NUM_DRAWS

tokens = st.integers(0, 39)
samplings = st.builds(
    Sampling,
    repetition_penalty=st.sampled_from([1.0, 0.5, 1.3, 10.0]),
    presence_penalty=st.sampled_from([0.0, -2.0, 0.6]),
    frequency_penalty=st.sampled_from([0.0, 2.0, -0.3]),
    logit_bias=st.dictionaries(tokens, st.floats(-100, 100, width=32), max_size=5).map(lambda found: (*found.items(),)),
)


def some_logits(vocab_size: int, seed: int = 0, spread: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, spread, vocab_size).astype(np.float32)


def sequence_of(prompt: list[int], sampling: Sampling, **fields: object) -> Sequence:
    asked = request(1, prompt, sampling=sampling, **fields)
    return Sequence(asked, np.array(prompt, np.int64), LIMITS, open_letters())


@settings(deadline=None, max_examples=60)
@given(sampling=samplings, prompt=st.lists(tokens, min_size=1, max_size=30), answer=st.lists(tokens, max_size=80))
def test_changed_logits_are_those_of_the_reference_after_every_token(sampling, prompt, answer):
    changes = LogitChanges.of(sampling, np.array(prompt, np.int64))
    if changes is None:
        assert sampling == Sampling()
        return
    logits = some_logits(40, len(prompt))
    for place in range(len(answer) + 1):
        changed = logits.copy()
        changes.apply(changed)
        expected = changed_logits(logits, sampling, prompt, answer[:place])
        np.testing.assert_allclose(changed, expected, rtol=1e-4, atol=1e-4)
        if place < len(answer):
            changes.count(answer[place])


@settings(deadline=None, max_examples=40)
@given(sampling=samplings, prompt=st.lists(tokens, min_size=1, max_size=10), seed=st.integers(0, 1000))
def test_a_greedy_choice_is_the_highest_changed_logit_and_leaves_the_row_as_it_was(sampling, prompt, seed):
    sequence = sequence_of(prompt, sampling)
    answer: list[int] = []
    for place in range(6):
        logits = some_logits(40, 100 * seed + place)
        before = logits.copy()
        token, logprobs = pick_token(sequence, logits, int(logits.argmax()))
        expected = changed_logits(logits, sampling, prompt, answer)
        assert expected[token] >= expected.max() - 1e-3
        assert logprobs is None
        assert (logits == before).all()
        answer.append(token)


@pytest.mark.parametrize("vocab_size", [5, 3000])
@pytest.mark.parametrize(
    "wish",
    [
        {"min_p": 0.1},
        {"min_p": 1.0},
        {"min_p": 0.02, "temperature": 2.0},
        {"min_p": 0.3, "temperature": 0.4},
        {"min_p": 0.05, "top_p": 0.8},
        {"min_p": 0.5, "top_p": 0.99},
        {"min_p": 0.001, "top_p": 0.3, "temperature": 1.7},
        {"min_p": 0.1, "top_k": 7},
        {"min_p": 0.05, "top_k": 50, "top_p": 0.9},
    ],
)
def test_tokens_come_as_often_as_the_reference_says(vocab_size, wish):
    sampling = Sampling(**{"temperature": 1.0, "seed": 4, **wish})
    logits, generator = some_logits(vocab_size, vocab_size), make_generator(4)
    drawn = np.bincount([draw_token(logits, sampling, generator) for _ in range(NUM_DRAWS)], minlength=vocab_size)
    expected, seen = probabilities(logits, sampling), drawn / NUM_DRAWS
    assert set(np.flatnonzero(seen)) <= set(np.flatnonzero(expected))
    deviation = np.sqrt(expected * (1 - expected) / NUM_DRAWS)
    assert (np.abs(seen - expected) <= 6 * deviation + RARE).all()


def test_equal_logits_all_pass_the_highest_min_p():
    generator = make_generator(1)
    sampling = Sampling(temperature=0.7, min_p=1.0)
    drawn = {draw_token(np.zeros(24, np.float32), sampling, generator) for _ in range(600)}
    assert drawn == set(range(24))


@pytest.mark.parametrize("num_top", [0, 1, 5, 20])
@pytest.mark.parametrize("vocab_size", [5, 64, 3001])
def test_log_probabilities_are_those_of_the_raw_logits(vocab_size, num_top):
    logits = some_logits(vocab_size, 3, 8.0)
    expected = log_softmax(logits)
    found = logprobs_of(logits, 3, num_top)
    assert found.chosen == pytest.approx(expected[3], abs=1e-4)
    order = np.argsort(-logits, kind="stable")[:num_top].tolist()
    assert [token for token, _ in found.top] == order
    assert [logprob for _, logprob in found.top] == pytest.approx(expected[order].tolist(), abs=1e-4)


def test_what_the_model_rules_out_has_a_finite_log_probability():
    logits = np.full(30, -np.inf, np.float32)
    logits[4] = 1.0
    found = logprobs_of(logits, 5, 2)
    assert (found.chosen, found.top[0]) == (LOWEST_LOGPROB, (4, 0.0))
    assert found.top[1][1] == LOWEST_LOGPROB


def test_penalties_bias_and_temperature_do_not_show_in_log_probabilities():
    wishes = Sampling(temperature=1.9, logit_bias=((7, 100.0),), repetition_penalty=2.0, frequency_penalty=2.0, seed=1)
    sequence = sequence_of([1, 2, 3], wishes, num_logprobs=3)
    logits = some_logits(VOCAB_SIZE)
    token, logprobs = pick_token(sequence, logits, int(logits.argmax()))
    assert token == 7
    assert logprobs is not None
    assert logprobs.chosen == pytest.approx(log_softmax(logits)[7], abs=1e-4)
