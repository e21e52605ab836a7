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
