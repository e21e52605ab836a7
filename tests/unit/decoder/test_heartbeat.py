"""Whether the engine lives, on a clock that the test moves."""

from tidemill_serving.decoder.heartbeat import Heartbeat


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_work_may_take_five_seconds_at_least():
    clock = Clock()
    heartbeat = Heartbeat(clock)
    heartbeat.begin("decode")
    clock.now += 5.0
    assert heartbeat.is_fresh()
    clock.now += 0.1
    assert not heartbeat.is_fresh()


def test_work_may_take_five_times_its_longest_of_the_same_kind():
    clock = Clock()
    heartbeat = Heartbeat(clock)
    heartbeat.begin("prefill")
    clock.now += 4.0
    heartbeat.begin("decode")
    clock.now += 1.0
    heartbeat.begin("prefill")
    clock.now += 19.9
    assert heartbeat.is_fresh()
    clock.now += 0.2
    assert not heartbeat.is_fresh()
    heartbeat.begin("decode")
    clock.now += 5.1
    assert not heartbeat.is_fresh()


def test_a_load_has_longer_since_there_is_no_example():
    clock = Clock()
    heartbeat = Heartbeat(clock)
    heartbeat.begin("load")
    clock.now += 300.0
    assert heartbeat.is_fresh()


def test_work_may_take_five_times_what_was_expected_of_it():
    clock = Clock()
    heartbeat = Heartbeat(clock)
    heartbeat.expect("prefill", 3.0)
    heartbeat.begin("prefill")
    clock.now += 15.0
    assert heartbeat.is_fresh()
    clock.now += 0.1
    assert not heartbeat.is_fresh()
    heartbeat.begin("decode")
    clock.now += 5.1
    assert not heartbeat.is_fresh()


def test_its_last_beat_is_when_the_present_work_began():
    clock = Clock()
    heartbeat = Heartbeat(clock)
    assert heartbeat.last_beat() == 100.0
    heartbeat.begin("decode")
    clock.now += 30.0
    assert heartbeat.last_beat() == 100.0
    heartbeat.begin("idle")
    assert heartbeat.last_beat() == 130.0
