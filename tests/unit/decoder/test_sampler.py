"""The distribution that tokens are drawn from, against the exact one."""

import numpy as np
import pytest

from tests.unit.decoder.recorder import hot
from tidemill_serving.decoder.sampler import NUMS_HEAVIEST, check_sampling, draw_token, is_greedy, make_generator
from tidemill_serving.engine import Sampling

NUM_DRAWS = 4_000
RARE = 3 / NUM_DRAWS  # a token that hardly ever comes may come thrice


def exact(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Probabilities by the textbook: temperature, top-k, top-p over a sorted vocabulary."""
    scaled = logits.astype(np.float64) / sampling.temperature
    probabilities = np.exp(scaled - scaled.max())
    order = np.argsort(-probabilities, kind="stable")
    if sampling.top_k:
        probabilities[order[sampling.top_k :]] = 0.0
    probabilities /= probabilities.sum()
    reach = np.cumsum(probabilities[order])
    size = int(np.searchsorted(reach, sampling.top_p - 1e-12)) + 1
    probabilities[order[size:]] = 0.0
    return probabilities / probabilities.sum()


def drawn(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """How often each token comes up."""
    generator = make_generator(sampling.seed)
    tokens = [draw_token(logits, sampling, generator) for _ in range(NUM_DRAWS)]
    return np.bincount(tokens, minlength=len(logits)) / NUM_DRAWS


def some_logits(vocab_size: int, spread: float) -> np.ndarray:
    return np.random.default_rng(vocab_size).normal(0.0, spread, vocab_size).astype(np.float32)


@pytest.mark.parametrize("vocab_size", [2, 12, 400])
@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"temperature": 0.3},
        {"temperature": 2.0},
        {"top_p": 0.9},
        {"top_p": 0.3, "temperature": 1.5},
        {"top_k": 1},
        {"top_k": 5},
        {"top_k": 100_000},
        {"top_k": 8, "top_p": 0.7},
        {"top_k": 200, "top_p": 0.95, "temperature": 1.8},
    ],
)
def test_tokens_come_as_often_as_their_probability_says(vocab_size, wish):
    logits, sampling = some_logits(vocab_size, 2.0), hot(seed=5, **wish)
    expected, seen = exact(logits, sampling), drawn(logits, sampling)
    assert set(np.flatnonzero(seen)) <= set(np.flatnonzero(expected))
    deviation = np.sqrt(expected * (1 - expected) / NUM_DRAWS)
    assert (np.abs(seen - expected) <= 5 * deviation + RARE).all()


@pytest.mark.parametrize("top_p", [0.2, 0.5, 0.99])
def test_a_nucleus_wider_than_the_head_is_drawn_exactly_too(top_p):
    logits, sampling = some_logits(3000, 0.1), hot(seed=6, top_p=top_p)
    expected, seen = exact(logits, sampling), drawn(logits, sampling)
    assert (expected > 0).sum() > NUMS_HEAVIEST[top_p > 0.4]
    assert set(np.flatnonzero(seen)) <= set(np.flatnonzero(expected))
    deviation = np.sqrt(expected * (1 - expected) / NUM_DRAWS)
    assert (np.abs(seen - expected) <= 6 * deviation + RARE).all()


def test_a_tiny_top_p_leaves_the_best_token():
    logits = some_logits(3000, 1.0)
    assert drawn(logits, hot(seed=1, top_p=1e-9))[logits.argmax()] == 1.0


def test_equal_logits_and_a_tiny_top_p_still_give_a_token():
    assert 0 <= draw_token(np.zeros(3000, np.float32), hot(seed=1, top_p=1e-9), make_generator(1)) < 3000


def test_logits_of_minus_infinity_never_come_up():
    logits = np.full(300, -np.inf, np.float32)
    logits[[7, 70]] = [1.0, 1.0]
    assert set(np.flatnonzero(drawn(logits, hot(seed=1)))) == {7, 70}
    assert set(np.flatnonzero(drawn(logits, hot(seed=1, top_p=0.9)))) == {7, 70}
    assert set(np.flatnonzero(drawn(logits, hot(seed=1, top_k=50)))) == {7, 70}


class Fixed:
    """A generator whose chance is known."""

    def __init__(self, value: float) -> None:
        self._value = value

    def random(self) -> float:
        return self._value


@pytest.mark.parametrize("chance", [0.0, 1e-300, 0.5, np.nextafter(1.0, 0.0)])
@pytest.mark.parametrize("vocab_size", [3, 256, 257, 5000])
@pytest.mark.parametrize("top_p", [0.5, 1.0])
def test_the_ends_of_chance_never_lead_to_a_token_without_weight(chance, vocab_size, top_p):
    logits = np.full(vocab_size, -np.inf, np.float32)
    possible = {1, vocab_size // 2, vocab_size - 2}
    logits[list(possible)] = [0.1, 0.2, 0.3][: len(possible)]
    assert draw_token(logits, hot(seed=1, top_p=top_p), Fixed(chance)) in possible


@pytest.mark.parametrize("count", [1, 5, 64, 1024, 2000, 4999])
def test_top_k_keeps_exactly_the_highest(count):
    logits = some_logits(5000, 1.0)
    sampling, generator = hot(seed=2, temperature=2.0, top_k=count), make_generator(2)
    seen = {draw_token(logits, sampling, generator) for _ in range(3000)}
    assert seen <= set(np.argsort(-logits)[:count])
    assert len(seen) >= min(count, 500)


@pytest.mark.parametrize("seed", [0, 1, -1, 2**64 - 1, 2**80])
def test_any_whole_number_is_a_seed(seed):
    logits, sampling = some_logits(400, 1.0), hot(seed=seed)
    first, second = make_generator(seed), make_generator(seed)
    assert [draw_token(logits, sampling, first) for _ in range(20)] == [
        draw_token(logits, sampling, second) for _ in range(20)
    ]


def test_without_a_seed_two_generators_differ():
    assert make_generator(None).random() != make_generator(None).random()


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (Sampling(temperature=-0.1), "temperature"),
        (Sampling(temperature=2.1), "temperature"),
        (Sampling(temperature=float("nan")), "temperature"),
        (Sampling(temperature=float("inf")), "temperature"),
        (Sampling(top_p=0.0), "top_p"),
        (Sampling(top_p=1.1), "top_p"),
        (Sampling(top_p=float("nan")), "top_p"),
        (Sampling(top_k=-1), "top_k"),
    ],
)
def test_a_value_out_of_its_range_is_named(sampling, field):
    assert check_sampling(sampling).startswith(field)


def test_values_at_their_limits_are_taken():
    assert check_sampling(Sampling(temperature=2.0, top_p=1.0, top_k=0)) is None
    assert check_sampling(Sampling(temperature=0.0, top_p=1e-9, top_k=2**31)) is None


def test_no_temperature_and_a_single_candidate_are_greedy():
    assert is_greedy(Sampling(temperature=0.0))
    assert is_greedy(Sampling(temperature=1e-30))
    assert is_greedy(Sampling(temperature=1.0, top_k=1))
    assert not is_greedy(Sampling(temperature=0.01))
