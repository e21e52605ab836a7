"""All rows of a step together: each gives what it gives alone, to the bit, and as often as the formulas say."""

import numpy as np
import pytest

from tests.unit.decoder.recorder import LIMITS, open_letters, request
from tests.unit.decoder.sampling_reference import changed_logits, log_softmax, probabilities
from tidemill_serving.decoder import batch_picker
from tidemill_serving.decoder.batch_picker import BatchPicker
from tidemill_serving.decoder.picker import logprobs_of
from tidemill_serving.decoder.sequence import Sequence
from tidemill_serving.decoder.whole_rows import WholeRows
from tidemill_serving.engine import Sampling

NUM_DRAWS = 1_024
RARE = 3 / NUM_DRAWS
BATCH = 64
PENALTIES = {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": -0.2}
WISHES = [
    {},
    {"temperature": 0.3},
    {"temperature": 2.0},
    {"top_k": 5},
    {"top_k": 300, "temperature": 1.7},
    {"top_k": 1_500, "temperature": 2.0},
    {"top_k": 100_000},
    {"top_p": 0.3},
    {"top_p": 0.9, "temperature": 0.4},
    {"top_p": 0.99, "temperature": 2.0},
    {"top_p": 1e-9},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"min_p": 1e-4, "temperature": 2.0},
    {"top_k": 50, "top_p": 0.8, "min_p": 0.02},
    {"top_p": 0.9, "min_p": 0.01, "temperature": 1.5},
    {"top_p": 0.9, "min_p": 1e-5, "temperature": 2.0},
    {"logit_bias": ((3, 5.0), (4, -100.0)), "top_p": 0.8},
    {"top_k": 40, **PENALTIES},
    {"temperature": 0.0, **PENALTIES},
]


def some_logits(num_rows: int, vocab_size: int, spread: float = 2.0) -> np.ndarray:
    return np.random.default_rng(vocab_size).normal(0.0, spread, (num_rows, vocab_size)).astype(np.float32)


def sequence_of(wish: dict, seed: int = 0, num_logprobs: int | None = None) -> Sequence:
    sampling = Sampling(**{"temperature": 1.0, "seed": seed, **wish})
    prompt = [1, 2, 3, 3]
    asked = request(seed, prompt, sampling=sampling, num_logprobs=num_logprobs)
    return Sequence(asked, np.array(prompt, np.int64), LIMITS, open_letters())


def picks_of(sequences: list[Sequence], logits: np.ndarray, whole_rows: WholeRows) -> list:
    picker = BatchPicker(sequences, logits, whole_rows)
    return [picker.pick(row) for row in range(len(sequences))]


@pytest.mark.parametrize("vocab_size", [5, 3000])
@pytest.mark.parametrize("wish", WISHES)
def test_tokens_come_as_often_as_the_reference_says(vocab_size, wish):
    logits = np.repeat(some_logits(1, vocab_size), BATCH, axis=0)
    whole_rows, seen = WholeRows(vocab_size, num_threads=1), np.zeros(vocab_size)
    for turn in range(NUM_DRAWS // BATCH):
        sequences = [sequence_of(wish, turn * BATCH + row) for row in range(BATCH)]
        for token, _ in picks_of(sequences, logits, whole_rows):
            seen[token] += 1 / NUM_DRAWS
    sampling = sequences[0].request.sampling
    changed = changed_logits(logits[0], sampling, [1, 2, 3, 3], [])
    if sampling.temperature == 0.0:
        assert seen[changed.argmax()] == pytest.approx(1.0)
        return
    expected = probabilities(changed, sampling)
    assert set(np.flatnonzero(seen)) <= set(np.flatnonzero(expected))
    deviation = np.sqrt(expected * (1 - expected) / NUM_DRAWS)
    assert (np.abs(seen - expected) <= 6 * deviation + RARE).all()


@pytest.mark.parametrize("vocab_size", [40, 3001, 16_384])
def test_a_row_gives_the_same_alone_and_in_any_company_and_with_any_number_of_threads(vocab_size):
    told = [None, 0, 3]
    rows = [(wish, seed, told[seed % 3]) for seed, wish in enumerate(WISHES * 2)]
    logits = some_logits(len(rows), vocab_size)
    alone, together = WholeRows(vocab_size, num_threads=1), WholeRows(vocab_size, num_threads=3)
    ones = [[sequence_of(*row)] for row in rows]
    all_of_them, backwards = [sequence_of(*row) for row in rows], [sequence_of(*row) for row in reversed(rows)]
    for turn in range(4):
        expected = [picks_of(one, logits[row : row + 1] + turn, alone)[0] for row, one in enumerate(ones)]
        assert picks_of(all_of_them, logits + turn, together) == expected
        assert picks_of(backwards, (logits + turn)[::-1], together)[::-1] == expected


@pytest.mark.parametrize("vocab_size", [5, 3001, 4096])
@pytest.mark.parametrize("spread", [0.0, 8.0])
def test_log_probabilities_are_those_of_the_raw_logits(vocab_size, spread):
    logits = some_logits(6, vocab_size, spread)
    sequences = [sequence_of({"top_p": 0.9, **PENALTIES}, row, num_logprobs=4 * row) for row in range(6)]
    for row, (token, found) in enumerate(picks_of(sequences, logits, WholeRows(vocab_size, num_threads=1))):
        expected, order = log_softmax(logits[row]), np.argsort(-logits[row], kind="stable")[: 4 * row].tolist()
        assert found.chosen == pytest.approx(expected[token], abs=1e-4)
        assert [each for each, _ in found.top] == order
        assert [value for _, value in found.top] == pytest.approx(expected[order].tolist(), abs=1e-4)


def test_rows_with_very_many_equal_logits_and_with_most_ruled_out_are_drawn_too():
    equal, lone = np.zeros(8192, np.float32), np.full(8192, -np.inf, np.float32)
    lone[[7, 70]] = 1.0
    for wish in WISHES:
        sequences = [sequence_of({**wish, "repetition_penalty": 1.0}, row, num_logprobs=2) for row in range(2)]
        picks = picks_of(sequences, np.stack([equal, lone]), WholeRows(8192, num_threads=1))
        assert picks[1][0] in {7, 70}
        assert picks[1][1].top[0][0] == 7
        assert 0 <= picks[0][0] < 8192
        assert [token for token, _ in picks[0][1].top] == [0, 1]


def test_the_logits_stay_as_they_are():
    logits = some_logits(len(WISHES), 2048)
    before = logits.copy()
    picks_of([sequence_of(wish, 1, num_logprobs=2) for wish in WISHES], logits, WholeRows(2048, num_threads=1))
    assert (logits == before).all()


def test_a_row_that_is_not_finite_is_told_and_does_no_harm():
    logits = some_logits(3, 2048)
    logits[1, 5] = np.nan
    sequences = [sequence_of({"top_p": 0.9}, row) for row in range(3)]
    picker = BatchPicker(sequences, logits, WholeRows(2048, num_threads=1))
    assert picker.are_finite == [True, False, True]
    alone = picks_of([sequence_of({"top_p": 0.9}, 2)], logits[2:], WholeRows(2048, num_threads=1))
    assert picker.pick(2) == alone[0]


def test_what_cannot_be_done_together_is_done_row_by_row(monkeypatch):
    def fail(*given):
        raise MemoryError

    monkeypatch.setattr(batch_picker, "find_highest", fail)
    logits = some_logits(2, 2048)
    sequences = [sequence_of({"top_k": 3}, row, num_logprobs=1) for row in range(2)]
    for row, (token, found) in enumerate(picks_of(sequences, logits, WholeRows(2048, num_threads=1))):
        assert token in np.argsort(-logits[row])[:3]
        assert found == logprobs_of(logits[row], token, 1)
