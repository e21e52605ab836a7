"""Which wishes may be had, and where chance comes from."""

import pytest

from tidemill_serving.decoder.sampler import check_sampling, is_greedy, make_generator
from tidemill_serving.engine import Sampling


@pytest.mark.parametrize("seed", [0, 1, -1, 2**64 - 1, 2**80])
def test_any_whole_number_is_a_seed(seed):
    first, second = make_generator(seed), make_generator(seed)
    assert [first.random() for _ in range(20)] == [second.random() for _ in range(20)]


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
