"""What time costs."""

import pytest

from tidemill_services.domain.pricing import billed_seconds, session_cost


@pytest.mark.rule("S8")
@pytest.mark.parametrize(
    ("billed_ms", "seconds"), [(0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (10**15 + 1, 10**12 + 1)]
)
def test_a_begun_second_is_a_whole_one(billed_ms: int, seconds: int):
    assert billed_seconds(billed_ms) == seconds


def test_the_cost_is_whole_seconds_times_the_price_and_exact_at_any_size():
    assert session_cost(2_001, 1_250) == 3 * 1_250
    assert session_cost(30 * 86_400_000, 9_007_199_254_740_993) == 30 * 86_400 * 9_007_199_254_740_993
