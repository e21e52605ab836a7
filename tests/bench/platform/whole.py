"""The whole: a model of 125 million parameters through client, control plane and replica, beside its engine alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from tests.bench.common.figures import Sample, Target, difference, in_turns, median, ratio
from tests.bench.platform.figures import Figure
from tests.bench.platform.load import Load
from tests.bench.platform.plan import Plan
from tests.bench.platform.subjects import Engine, Platform, engine, platform

_BENCH = "whole"
_LATENCIES = ("TTFT p50", "TTFT p99", "ITL p50", "ITL p99")
_THROUGHPUT_TARGETS = {8: Target(0.93, is_floor=True), 32: Target(0.90, is_floor=True)}
_ARRIVALS = Load(8, 8, rounds=8, mean_pause_s=0.5)
_TTFT_TARGET = Target(5.0, is_floor=False)
_GROWTH_TARGET = Target(3.0, is_floor=True)


def measure(plan: Plan, package: Path, tell: Callable[[str], None]) -> list[Figure]:
    """All figures of this bench."""
    figures: list[Figure] = []
    speeds: dict[int, float] = {}
    with engine(package, device="cpu") as alone, platform(package, device="cpu", kinds=("library",)) as (whole,):
        for subject in (alone, whole):
            subject.measure(Load(1, 4))  # what only the first run pays
        for streams in plan.whole_streams:
            tell(f"whole: {streams} streams, {plan.whole_turns} turns of each")
            load = Load(streams, plan.whole_tokens)
            subjects = {"platform": partial(whole.measure, load), "engine": partial(alone.measure, load)}
            samples = in_turns(plan.whole_turns, subjects)
            speeds[streams] = median(samples["platform"], "throughput")
            figures += _figures(streams, samples["platform"], samples["engine"])
        tell(f"whole: first tokens, {plan.first_token_turns} turns of each")
        figures.append(_first_tokens(plan, whole, alone))
    if {1, 32} <= speeds.keys():
        growth = speeds[32] / speeds[1]
        figures.append(Figure(_BENCH, "throughput by that of 1 stream", 32, growth, "ratio", target=_GROWTH_TARGET))
    return figures


def _figures(streams: int, whole: Sequence[Sample], alone: Sequence[Sample]) -> list[Figure]:
    figures = []
    for name, samples in (("platform", whole), ("engine", alone)):
        figures.append(Figure(_BENCH, "throughput", streams, median(samples, "throughput"), "tokens/s", name))
        figures += [Figure(_BENCH, metric, streams, median(samples, metric), "ms", name) for metric in _LATENCIES]
    share = ratio(whole, alone, "throughput")
    target = _THROUGHPUT_TARGETS.get(streams)
    figures.append(Figure(_BENCH, "throughput by the engine's", streams, share, "ratio", target=target))
    for name in ("client", "control"):
        part = 100 * median(whole, f"share {name}")
        figures.append(Figure(_BENCH, "share of the machine's processor time", streams, part, "%", name))
    return figures


def _first_tokens(plan: Plan, whole: Platform, alone: Engine) -> Figure:
    """What is added to the time to a first token.

    Streams pause before each generation: without it the engine's callers, and only they, would come between two
    steps, and never wait for the one that runs.
    """

    def turns(subject: Platform | Engine) -> Callable[[], Sample]:
        seeds = count()  # the same for both
        return lambda: subject.measure(replace(_ARRIVALS, seed=next(seeds)))

    samples = in_turns(plan.first_token_turns, {"platform": turns(whole), "engine": turns(alone)})
    added = difference(samples["platform"], samples["engine"], "TTFT p50")
    return Figure(_BENCH, "TTFT p50 added", _ARRIVALS.streams, added, "ms", target=_TTFT_TARGET)
