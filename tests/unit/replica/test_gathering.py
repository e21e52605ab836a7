"""When steps are passed on: at the one that comes nearest to a set time after those before."""

import pytest

from tidemill_serving.server.gathering import LONGEST_SECONDS, SHORTEST_SECONDS, Gathering


def passes(gathering: Gathering, gaps: list[float]) -> list[int]:
    """How many steps are passed on at a time, of steps that follow each other after these gaps."""
    now, num_steps, found = 1000.0, 0, []
    for gap in gaps:
        now += gap
        num_steps += 1
        if gathering.step_came(now):
            gathering.passed_on(now)
            found.append(num_steps)
            num_steps = 0
    return found


def asking(seconds: float) -> Gathering:
    gathering = Gathering()
    gathering.microseconds = round(seconds * 1e6)
    return gathering


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(0.0, SHORTEST_SECONDS), (0.002, SHORTEST_SECONDS), (0.01, 0.01), (0.5, LONGEST_SECONDS)],
)
def test_steps_gather_as_long_as_is_asked_for_within_bounds(asked: float, seconds: float) -> None:
    assert asking(asked).seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("gap", "num_together"), [(0.001, 24), (0.005, 5), (0.01, 2), (0.015, 2), (0.017, 1), (0.03, 1), (0.2, 1)]
)
def test_even_steps_are_passed_on_at_the_one_nearest_to_the_time(gap: float, num_together: int) -> None:
    assert passes(asking(0.024), [gap] * 100)[1:4] == [num_together] * 3


def test_a_slow_stream_waits_for_nothing_and_a_step_after_a_pause_neither() -> None:
    assert passes(asking(1.0), [0.04] * 20) == [1] * 20
    assert passes(asking(1.0), [0.001, 0.001, 3.0, 0.001, 0.001, 3.0]) == [1, 2, 3]


def test_the_step_to_be_sent_with_comes_before_patience_ends() -> None:
    gathering = asking(0.024)
    for microseconds in range(100, 16_000, 100):
        gap = microseconds / 1e6
        longest = max(passes(gathering, [gap] * 500)[1:]) * gap
        assert longest <= gathering.patience_seconds + 1e-9
        gathering = asking(0.024)
