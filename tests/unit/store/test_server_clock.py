"""The platform's time on Postgres, from a server's clock that is set while processes run."""

from dataclasses import dataclass, field

from tidemill_services.store.server_clock import JUMP_MS, ServerClock

HOUR_MS = 3_600_000
START_MS = 1_800_000_000_000


@dataclass
class World:
    """Time as it passes, and a server whose clock says something else."""

    passed_ms: int = 0
    set_by_ms: int = 0
    mark_ms: int = 0
    answer_ms: int = 2  # half of it before the server looks at its clock
    clock: ServerClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = self.new_clock()

    def new_clock(self) -> ServerClock:
        return ServerClock(monotonic_ns=lambda: self.passed_ms * 1_000_000)

    def ask(self) -> tuple[int, int]:
        self.passed_ms += self.answer_ms // 2
        server_ms = START_MS + self.passed_ms + self.set_by_ms
        self.passed_ms += self.answer_ms - self.answer_ms // 2
        return server_ms, self.mark_ms

    def error_ms(self, clock: ServerClock | None = None) -> int:
        """By how much a clock is ahead of time as it passed."""
        return (clock or self.clock).now_ms(self.ask) - (START_MS + self.passed_ms)


def test_an_even_clock_is_the_platforms():
    world = World()
    for _ in range(100):
        assert -2 <= world.error_ms() <= 0
        world.passed_ms += 700
    assert not world.clock.was_set


def test_time_goes_on_as_before_when_the_clock_is_set():
    world = World()
    world.error_ms()
    for set_by_ms in (2 * HOUR_MS, -2 * HOUR_MS, 0, 5_000, -5_000):
        world.set_by_ms = set_by_ms
        for _ in range(5):
            world.passed_ms += 1_000
            assert abs(world.error_ms()) <= 10, set_by_ms
    assert world.clock.was_set


def test_time_goes_on_when_the_clock_was_set_while_the_server_was_away():
    world = World()
    world.error_ms()
    world.passed_ms += 30_000
    world.set_by_ms = 2 * HOUR_MS
    assert abs(world.error_ms()) <= 10


def test_a_slow_answer_is_no_jump():
    world = World()
    world.error_ms()
    world.answer_ms = 30_000
    world.error_ms()
    world.error_ms()
    world.answer_ms = 2
    assert abs(world.error_ms()) <= 2
    assert not world.clock.was_set


def test_time_never_goes_back_however_the_clock_is_set():
    world = World()
    times = []
    for set_by_ms in (0, JUMP_MS, 0, -JUMP_MS, HOUR_MS, -HOUR_MS, 0):
        world.set_by_ms = set_by_ms
        times.append(world.clock.now_ms(world.ask))
    assert times == sorted(times)


def test_time_runs_from_the_mark_when_the_clock_was_set_back_while_nobody_ran():
    world = World(mark_ms=START_MS + 2 * HOUR_MS)
    first_ms = world.clock.now_ms(world.ask)
    assert first_ms == world.mark_ms
    world.passed_ms += 10_000
    assert abs(world.clock.now_ms(world.ask) - first_ms - 10_000) <= 10


def test_a_process_that_slept_goes_on_from_the_mark_of_the_others():
    world = World()
    sleeper = world.new_clock()
    world.error_ms(sleeper)
    world.passed_ms -= 60_000  # its monotonic clock stood, the server's did not
    world.set_by_ms += 60_000
    world.mark_ms = START_MS + 60_000
    assert abs(sleeper.now_ms(world.ask) - world.mark_ms) <= 10


def test_processes_that_live_through_it_and_one_that_comes_after_agree():
    world = World()
    clocks = [world.new_clock() for _ in range(3)]
    for clock in clocks:
        world.error_ms(clock)
    world.set_by_ms = -2 * HOUR_MS
    world.passed_ms += 1_000
    for clock in clocks:
        assert abs(world.error_ms(clock)) <= 10
    late = world.new_clock()
    world.mark_ms = max(clock.newest_ms for clock in clocks)
    assert abs(world.error_ms(late)) <= 20
