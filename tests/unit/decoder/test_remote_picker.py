"""Tokens chosen from a shortlist are as likely as those chosen from all logits, and few logits are copied for them."""

import numpy as np
import pytest

from tests.unit.decoder.recorder import hot
from tests.unit.decoder.sampling_reference import pairs, probabilities
from tidemill_serving.decoder.devices.accelerator import processor
from tidemill_serving.decoder.devices.element_types import BFLOAT16_BITS, to_float32
from tidemill_serving.decoder.devices.memory import Block
from tidemill_serving.decoder.devices.remote_logits import LogitsHead, RemoteRows
from tidemill_serving.decoder.numpy_chooser import logprobs_of
from tidemill_serving.decoder.picker import Picker
from tidemill_serving.decoder.wish import Wish
from tidemill_serving.engine import Sampling

VOCAB_SIZE = 1000  # not whole blocks
NUM_DRAWS = 1500
NOTHING, A_BLOCK, ALL = (), (256, VOCAB_SIZE % 256), (VOCAB_SIZE,)  # logits that are copied at once


class Rows(RemoteRows):
    """Counts what is copied."""

    copied: list[int]

    def piece(self, row, start, stop):
        self.copied.append(stop - start)
        return super().piece(row, start, stop)


def rows_of(logits, dtype=np.float32):
    accelerator = processor()
    bits = (logits.view(np.uint32) >> 16).astype(np.uint16) if dtype == BFLOAT16_BITS else logits.astype(dtype)
    address = accelerator.memory.allocate(bits.nbytes)
    accelerator.memory.write(Block(address, bits.nbytes), bits.reshape(1, -1).view(np.uint8))
    rows = Rows(LogitsHead(accelerator, dtype, logits.shape[1]), address, len(logits))
    object.__setattr__(rows, "copied", [])
    return rows


def some_logits(num_rows, spread, vocab_size=VOCAB_SIZE, seed=3):
    return np.random.default_rng(seed).normal(0.0, spread, (num_rows, vocab_size)).astype(np.float32)


def wish_of(sampling, **fields):
    return Wish(sampling, prompt=np.array([5, 6], np.int64), **fields)


@pytest.mark.parametrize(
    ("sampling", "spread", "copied"),
    [
        (hot(1), 1.0, A_BLOCK),
        (hot(1, temperature=0.4), 2.0, A_BLOCK),
        (hot(1, top_p=0.8), 4.0, NOTHING),
        (hot(1, top_p=0.8), 0.3, ALL),
        (hot(1, top_k=40, top_p=0.9), 1.0, NOTHING),
        (hot(1, top_k=200), 1.0, ALL),
        (hot(1, min_p=0.3), 2.0, NOTHING),
        (hot(1, min_p=0.001), 1.0, ALL),
        (hot(1, min_p=0.2, top_p=0.5), 2.0, NOTHING),
        (hot(1, logit_bias=((7, 3.0),)), 1.0, ALL),
    ],
    ids=["all", "cold", "nucleus", "wide nucleus", "few", "many", "floor", "low floor", "both", "bias"],
)
def test_tokens_are_as_likely_as_by_all_logits_and_no_more_is_copied_than_needed(sampling, spread, copied):
    logits = some_logits(1, spread)
    rows, wish = rows_of(logits), wish_of(sampling)
    changed = logits[0].copy()
    for token, bias in sampling.logit_bias:
        changed[token] += bias
    expected = probabilities(changed, sampling)
    picker, counts = Picker(), np.zeros(VOCAB_SIZE)
    for _ in range(NUM_DRAWS):
        counts[picker.pick([wish], rows).tokens[0]] += 1
    assert set(rows.copied) <= set(copied)
    assert not counts[expected == 0].any()
    likely = expected > 3 / NUM_DRAWS
    deviation = np.abs(counts - NUM_DRAWS * expected)[likely] / np.sqrt(NUM_DRAWS * expected[likely])
    assert deviation.max(initial=0) < 5.5


def test_the_best_of_each_row_is_taken_without_a_copy_beside_the_shortlist():
    logits = some_logits(5, 1.0)
    rows = rows_of(logits)
    picks = Picker().pick([wish_of(Sampling(temperature=0.0))] * 5, rows)
    assert picks.tokens == logits.argmax(axis=1).tolist()
    assert not rows.copied


def test_log_probabilities_are_those_of_the_raw_logits():
    logits = some_logits(2, 1.0)
    rows = rows_of(logits)
    wishes = [hot(4, temperature=1.7), Sampling(temperature=0.0)]
    picks = Picker().pick([wish_of(wish, num_logprobs=5) for wish in wishes], rows)
    for row, (token, found) in enumerate(pairs(picks)):
        expected = logprobs_of(logits[row], token, 5)
        assert found.chosen == pytest.approx(expected.chosen, abs=1e-4)
        assert [each for each, _ in found.top] == [each for each, _ in expected.top]
        assert [value for _, value in found.top] == pytest.approx([value for _, value in expected.top], abs=1e-4)


def test_a_seed_gives_the_same_tokens_alone_and_among_others():
    logits = some_logits(3, 1.0)
    alone = Picker().pick([wish_of(hot(9))], rows_of(logits[1:2])).tokens[0]
    among = Picker().pick([wish_of(hot(2)), wish_of(hot(9)), wish_of(hot(3))], rows_of(logits)).tokens[1]
    assert alone == among


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_known_by_their_totals(wrong):
    logits = some_logits(3, 1.0)
    logits[1, 400] = wrong
    picks = Picker().pick([wish_of(hot(9)) for _ in range(3)], rows_of(logits))
    assert [token >= 0 for token in picks.tokens] == [True, False, True]


def test_tokens_that_the_model_rules_out_make_a_row_no_less_finite():
    logits = some_logits(1, 1.0)
    logits[0, 10:] = -np.inf
    assert 0 <= Picker().pick([wish_of(hot(9))], rows_of(logits)).tokens[0] < 10


@pytest.mark.parametrize(("dtype", "close"), [(np.float16, 2e-3), (BFLOAT16_BITS, 2e-2)], ids=["float16", "bfloat16"])
def test_halves_are_looked_at_as_they_are(dtype, close):
    logits = some_logits(2, 1.0)
    rows = rows_of(logits, dtype)
    assert np.abs(rows.row(1) - logits[1]).max() < close * 4
    found = rows.shortlist(np.ones(2, np.float32), 3)
    assert found.logits[1].tolist() == np.sort(rows.row(1))[::-1][:3].tolist()
    assert found.totals[0] == pytest.approx(np.exp(rows.row(0) - rows.row(0).max()).sum(), rel=1e-4)


def test_a_vocabulary_smaller_than_the_shortlist_is_all_of_it():
    logits = some_logits(1, 0.1, vocab_size=20)
    rows = rows_of(logits)
    assert 0 <= Picker().pick([wish_of(hot(9, top_p=0.9))], rows).tokens[0] < 20
    assert not rows.copied
    assert to_float32(logits) is logits
