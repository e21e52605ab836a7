"""What callers' wishes do to logits, against a plain reference, and what is noted from one token to the next."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.decoder.sampling_reference import changed_logits, log_softmax
from tidemill_serving.decoder.logit_changes import LogitChanges
from tidemill_serving.decoder.picker import Picker
from tidemill_serving.decoder.wish import Wish
from tidemill_serving.engine import Sampling

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
def test_a_greedy_choice_is_the_highest_changed_logit_after_every_token(sampling, prompt, seed):
    wish, picker = Wish(sampling, prompt=np.array(prompt, np.int64)), Picker()
    answer: list[int] = []
    for place in range(100):  # more than the lists have room for at first
        logits = some_logits(100, 100 * seed + place)
        (token,), told = picker.pick([wish], logits[None])
        expected = changed_logits(logits, sampling, prompt, answer)
        assert expected[token] >= expected.max() - 1e-3
        assert not told
        answer.append(token)


def test_penalties_bias_and_temperature_do_not_show_in_log_probabilities():
    wishes = Sampling(temperature=1.9, logit_bias=((7, 100.0),), repetition_penalty=2.0, frequency_penalty=2.0, seed=1)
    logits = some_logits(512)
    wish = Wish(wishes, prompt=np.array([1, 2, 3], np.int64), num_logprobs=3)
    (token,), told = Picker().pick([wish], logits[None])
    assert token == 7
    assert told[0].chosen == pytest.approx(log_softmax(logits)[7], abs=1e-4)
