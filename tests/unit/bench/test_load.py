import pytest

from tests.bench.platform.load import Load, Trace, summary


def test_prompts_differ_between_streams_and_are_the_same_in_every_turn() -> None:
    load = Load(streams=8, max_tokens=4)
    assert len(set(load.prompts())) == 8
    assert load.prompts() == load.prompts()


def test_a_turn_is_summed_up() -> None:
    traces = [Trace(began=10.0), Trace(began=10.0)]
    for now in (10.2, 10.3, 10.5):
        traces[0].saw(1, now)
    traces[1].saw(2, 10.4)
    traces[1].saw(3, 12.0)
    found = summary(traces, cpu_seconds=0.5)
    assert found["tokens"] == 8
    assert found["generations"] == 2
    assert found["seconds"] == 2.0
    assert found["throughput"] == 4.0
    assert found["tokens per message"] == 8 / 5
    assert found["TTFT p50"] == pytest.approx(200)
    assert found["TTFT p99"] == pytest.approx(400)
    assert found["ITL p50"] == pytest.approx(200)
    assert found["ITL p99"] == pytest.approx(1600)
    assert found["cpu"] == 0.5
