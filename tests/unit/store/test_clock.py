"""The one clock of a process on SQLite."""

from tidemill_services.store.clock import Clock


def test_time_is_the_wall_clock_at_the_start_and_monotonic_after():
    times = {"wall": 1_000_000_000_000, "monotonic": 50_000_000}
    clock = Clock(wall_ns=lambda: times["wall"], monotonic_ns=lambda: times["monotonic"])
    assert clock.now_ms() == 1_000_000
    times["wall"] -= 7_200_000_000_000
    times["monotonic"] += 250_999_999
    assert clock.now_ms() == 1_000_250


def test_time_goes_on_from_a_mark_ahead_and_ignores_one_behind():
    times = {"monotonic": 0}
    clock = Clock(wall_ns=lambda: 1_000_000_000, monotonic_ns=lambda: times["monotonic"])
    clock.start_from(400)
    assert clock.now_ms() == 1_000
    clock.start_from(5_000)
    assert clock.now_ms() == 5_000
    times["monotonic"] = 3_000_000
    assert clock.now_ms() == 5_003
