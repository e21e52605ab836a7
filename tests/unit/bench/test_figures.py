import pytest

from tests.bench.common.figures import Target, difference, in_turns, median, quantile, ratio
from tests.bench.platform.figures import Figure, losses_first


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, 0.0),
        ([7.0], 0.99, 7.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([4.0, 3.0, 2.0, 1.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 101)], 1.0, 100.0),
        ([float(n) for n in range(1, 101)], 0.0, 1.0),
    ],
)
def test_a_quantile_is_the_smallest_value_that_so_many_do_not_exceed(
    values: list[float], share: float, expected: float
) -> None:
    assert quantile(values, share) == expected


def test_subjects_take_turns() -> None:
    order: list[str] = []

    def subject(name: str) -> dict[str, float]:
        order.append(name)
        return {"n": float(len(order))}

    samples = in_turns(3, {"a": lambda: subject("a"), "b": lambda: subject("b")})
    assert order == ["a", "b"] * 3
    assert [sample["n"] for sample in samples["b"]] == [2.0, 4.0, 6.0]


def test_what_changes_from_turn_to_turn_falls_out_of_ratios_and_differences() -> None:
    fast = [{"speed": 90.0}, {"speed": 45.0}, {"speed": 9.0}]  # the machine gets slower
    slow = [{"speed": 30.0}, {"speed": 15.0}, {"speed": 3.0}]
    assert ratio(fast, slow, "speed") == 3.0
    assert median(fast, "speed") == 45.0
    assert difference(fast, slow, "speed") == 30.0


def test_turns_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([{"speed": 1.0}] * 2, [{"speed": 1.0}], "speed")


def test_a_target_holds_at_its_limit() -> None:
    floor, ceiling = Target(4.0, is_floor=True), Target(5.0, is_floor=False)
    assert [floor.holds(value) for value in (3.9, 4.0)] == [False, True]
    assert [ceiling.holds(value) for value in (5.0, 5.1)] == [True, False]
    assert (str(floor), str(ceiling)) == ("≥ 4", "≤ 5")


def test_missed_targets_come_first_and_figures_without_one_are_left_out() -> None:
    target = Target(1.0, is_floor=True)
    met = Figure("wire", "met", 1, 2.0, "ratio", target=target)
    missed = Figure("wire", "missed", 1, 0.5, "ratio", target=target)
    assert losses_first([met, Figure("wire", "free", 1, 9.0, "ms"), missed]) == [missed, met]


def test_a_record_says_what_was_measured_and_whether_it_is_enough() -> None:
    record = Figure("whole", "throughput by the engine's", 8, 0.9, "ratio", target=Target(0.93, is_floor=True)).record()
    assert record == {
        "bench": "whole",
        "metric": "throughput by the engine's",
        "streams": 8,
        "value": 0.9,
        "unit": "ratio",
        "subject": "platform",
        "target": "≥ 0.93",
        "met": False,
    }
