"""Whether a replica shows life, on a clock that the test moves."""

from tidemill_services.engine_client.life import LOOK_SECONDS, Patience, SignsOfLife

PATIENCE = Patience(stale=5, silence=15, unresponsive=60)


class Watch:
    """A client's looks at a replica."""

    def __init__(self) -> None:
        self.now = 100.0
        self.life = SignsOfLife(PATIENCE, self.now)

    def look_for(self, seconds: float, *, late: float = 0.0) -> None:
        """Look for so long, each time so late."""
        until = self.now + seconds
        while self.now < until:
            self.now += LOOK_SECONDS + late
            self.life.look()


def test_a_replica_is_silent_after_five_seconds_and_lost_after_fifteen() -> None:
    watch = Watch()
    watch.look_for(5)
    assert not watch.life.is_silent(watch.now)
    watch.look_for(LOOK_SECONDS)
    assert watch.life.is_silent(watch.now)
    assert not watch.life.why_lost(watch.now)
    watch.look_for(10)
    assert watch.life.why_lost(watch.now) == "it said nothing for 15 s"
    assert watch.life.last_life == 100.0


def test_whatever_it_says_ends_the_silence() -> None:
    watch = Watch()
    watch.look_for(5)
    watch.life.heard(watch.now)
    watch.look_for(5)
    assert not watch.life.is_silent(watch.now)
    assert watch.life.last_life == 105.0


def test_who_stood_still_does_not_blame_the_replica() -> None:
    watch = Watch()
    watch.look_for(4.5)
    watch.now += 600  # and what came meanwhile is read after the next look
    watch.life.look()
    assert not watch.life.is_silent(watch.now)
    watch.life.heard(watch.now)
    watch.look_for(4.5)
    assert not watch.life.is_silent(watch.now)


def test_who_is_starved_waits_longer() -> None:
    watch = Watch()
    watch.look_for(9, late=LOOK_SECONDS)  # every look takes twice its time
    assert not watch.life.is_silent(watch.now)
    watch.look_for(2, late=LOOK_SECONDS)
    assert watch.life.is_silent(watch.now)


def test_looks_that_come_right_after_a_message_do_not_make_the_silence_longer_than_the_clock_says() -> None:
    watch = Watch()
    watch.life.heard(watch.now)
    for _ in range(100):
        watch.life.look()
    assert not watch.life.is_silent(watch.now)


def test_a_replica_whose_engine_is_silent_is_lost_sixty_seconds_after_the_engines_last_life() -> None:
    watch = Watch()
    watch.life.engine_is_silent(5.25, watch.now)
    for _ in range(54):
        watch.look_for(1)
        watch.life.heard(watch.now)
        watch.life.engine_is_silent(5.25 + watch.now - 100, watch.now)
    assert not watch.life.why_lost(watch.now)
    assert watch.life.last_life == 94.75
    watch.look_for(1)
    assert watch.life.why_lost(watch.now) == "its engine showed no life for 60 s"


def test_an_engine_that_shows_life_again_is_not_lost() -> None:
    watch = Watch()
    watch.life.engine_is_silent(50, watch.now)
    watch.life.engine_lives()
    watch.look_for(12)
    assert not watch.life.why_lost(watch.now)
    watch.life.heard(watch.now)
    watch.life.engine_is_silent(5, watch.now)
    watch.look_for(12)
    assert not watch.life.why_lost(watch.now)


def test_who_stood_still_does_not_blame_the_engine() -> None:
    watch = Watch()
    watch.life.engine_is_silent(5, watch.now)
    watch.now += 600
    watch.life.look()
    assert not watch.life.why_lost(watch.now)
