"""Which wishes may be had, and where chance comes from."""

import numpy as np
import pytest

from tidemill_serving.decoder.sampler import NUM_AT_A_TIME, Chances, check_sampling, is_greedy
from tidemill_serving.engine import Sampling


@pytest.mark.parametrize("seed", [0, 1, -1, 2**64 - 1, 2**80])
def test_any_whole_number_is_a_seed(seed):
    first, second = Chances(seed), Chances(seed)
    assert [first.next() for _ in range(100)] == [second.next() for _ in range(100)]


def test_without_a_seed_two_sources_differ():
    assert Chances(None).next() != Chances(None).next()


def test_numbers_that_are_made_together_are_those_that_come_one_by_one():
    source, numbers = Chances(7), np.random.default_rng(7)
    assert [source.next() for _ in range(3 * NUM_AT_A_TIME)] == [numbers.random() for _ in range(3 * NUM_AT_A_TIME)]


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
