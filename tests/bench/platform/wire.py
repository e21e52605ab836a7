"""The wire: a fake device that makes one token a tick, so that all the rest is ours; beside LitServe, which streams
from the same engine and device.

*Paced*, a tick takes 10 ms. *Saturated*, it takes no time, and every process is as fast as two processors let it.
The processor time that the platform adds is that of the control plane and of the replica, less what the engine alone
spends on the same load. A unary call is a generation of one token by 16 callers, each with one call at a time. Beside
both stands the *floor*: a bare grpc.aio server and client that pass the same messages, one token each, over one hop
where the platform has two.
"""

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.bench.common.figures import Sample, Target, in_turns, median, ratio
from tests.bench.platform import admission
from tests.bench.platform.figures import Figure
from tests.bench.platform.load import Load
from tests.bench.platform.plan import Plan
from tests.bench.platform.subjects import Platform, bare_grpc, engine, has_litserve, litserve, platform

_BENCH = "wire"
_FLOOR = "bare gRPC"
TICK_MS = 10
NUM_SATURATED = 16  # streams
NUM_CALLERS = 16
_PACED_TARGETS = {16: Target(45.0, is_floor=False), 64: Target(30.0, is_floor=False)}
_SATURATED_TARGET = Target(5.0, is_floor=False)
_STREAMING_TARGET = Target(4.0, is_floor=True)
_UNARY_TARGET = Target(2.5, is_floor=True)
_ADMISSION_TARGET = Target(5.0, is_floor=False)

Tell = Callable[[str], None]


def measure_fast(plan: Plan, package: Path, tell: Tell) -> list[Figure]:
    """As fast as it can: streams, then unary calls."""
    with platform(package, device="fake", kinds=("library", "stubs")) as ours:
        return _saturated(plan, package, ours, tell) + _unary(plan, package, ours, tell)


def measure_paced(plan: Plan, package: Path, tell: Tell) -> list[Figure]:
    """One token every 10 ms."""
    figures: list[Figure] = []
    device = {"device": "fake", "tick_ms": TICK_MS}
    with (
        engine(package, **device) as alone,
        bare_grpc(tick_ms=TICK_MS) as floor,
        platform(package, kinds=("library",), **device) as (whole,),
    ):
        for streams in plan.wire_streams:
            tell(f"wire: paced, {streams} streams")
            load = Load(streams, plan.paced_tokens)
            subjects = {
                "platform": partial(whole.measure, load),
                "engine": partial(alone.measure, load),
                _FLOOR: partial(floor.measure, load),
            }
            samples = in_turns(plan.wire_turns, subjects)
            figures += _cpu_figures("paced", streams, samples, _PACED_TARGETS.get(streams))
            figures += _parts_of_a_token("paced", streams, samples[_FLOOR], ("client", "server"), f"{_FLOOR}: ")
            share = _by_the_floor(samples, "cpu")
            figures.append(_figure("control plane's time of a token by the floor's, paced", streams, share, "ratio"))
    return figures


def _saturated(plan: Plan, package: Path, ours: Sequence[Platform], tell: Tell) -> list[Figure]:
    tell(f"wire: saturated, {NUM_SATURATED} streams")
    load = Load(NUM_SATURATED, plan.saturated_tokens, plan.saturated_rounds)
    with ExitStack() as parts:
        alone = parts.enter_context(engine(package, device="fake"))
        subjects = {**_by_client(ours, load), "engine": partial(alone.measure, load)}
        if plan.with_peers and has_litserve():
            for name, mode in (("litserve", "streamed"), ("litserve, tokens joined by hand", "joined")):
                peer = parts.enter_context(litserve(package, mode))
                subjects[name] = partial(peer.measure, load)
        samples = in_turns(plan.wire_turns, subjects)
    figures = _cpu_figures("saturated", NUM_SATURATED, samples, _SATURATED_TARGET)
    for name, turns in samples.items():
        figures.append(_figure("streaming", NUM_SATURATED, median(turns, "throughput"), "tokens/s", name))
        figures.append(_figure("tokens a message", NUM_SATURATED, median(turns, "tokens per message"), "tokens", name))
        if name.startswith("litserve"):
            target = _STREAMING_TARGET if name == "litserve" else None
            share = ratio(samples["platform"], turns, "throughput")
            figures.append(_figure(f"streaming by that of {name}", NUM_SATURATED, share, "ratio", target=target))
            figures += _parts_of_a_token("saturated", NUM_SATURATED, turns, ("client", "litserve"), f"{name}: ")
    return figures


def _by_client(ours: Sequence[Platform], load: Load) -> dict[str, Callable[[], Sample]]:
    library, stubs = ours
    return {"platform": partial(library.measure, load), "platform, bare stubs": partial(stubs.measure, load)}


def _unary(plan: Plan, package: Path, ours: Sequence[Platform], tell: Tell) -> list[Figure]:
    tell(f"wire: unary calls, {NUM_CALLERS} callers")
    load = Load(NUM_CALLERS, 1, plan.unary_rounds, prompt_letters=16, whole=True)
    with ExitStack() as parts:
        subjects = _by_client(ours, load) | {_FLOOR: partial(parts.enter_context(bare_grpc()).measure, load)}
        if plan.with_peers and has_litserve():
            peer = parts.enter_context(litserve(package, "unary"))
            subjects["litserve"] = partial(peer.measure, load)
        samples = in_turns(plan.wire_turns, subjects)
    figures = []
    for name, turns in samples.items():
        figures.append(_figure("unary calls", NUM_CALLERS, median(turns, "throughput"), "calls/s", name))
        figures.append(_figure("unary call p50", NUM_CALLERS, median(turns, "TTFT p50"), "ms", name))
    if "litserve" in samples:
        share = ratio(samples["platform"], samples["litserve"], "throughput")
        figures.append(_figure("unary calls by LitServe's", NUM_CALLERS, share, "ratio", target=_UNARY_TARGET))
    share = ratio(samples["platform"], samples[_FLOOR], "throughput")
    figures.append(_figure("unary calls by the floor's", NUM_CALLERS, share, "ratio"))
    share = _by_the_floor(samples, "call")
    figures.append(_figure("control plane's time of a unary call by the floor's", NUM_CALLERS, share, "ratio"))
    for part in ("client", "server"):
        value = median(samples[_FLOOR], f"call {part}")
        figures.append(_figure("processor time of a unary call", NUM_CALLERS, value, "µs", f"{_FLOOR}: {part}"))
    spent = {part: median(samples["platform"], f"call {part}") for part in ("client", "control", "replica")}
    for part, value in spent.items():
        figures.append(_figure("processor time of a unary call", NUM_CALLERS, value, "µs", part))
    admitting = admission.measure(package, plan.num_admissions)
    share = 100 * admitting / sum(spent.values())
    figures.append(_figure("processor time of an admission", NUM_CALLERS, admitting, "µs", "control"))
    figures.append(
        _figure("admission's share of a unary call's processor time", NUM_CALLERS, share, "%", target=_ADMISSION_TARGET)
    )
    return figures


def _by_the_floor(samples: dict[str, list[Sample]], unit: str) -> float:
    """The control plane's processor time by a bare server's: `cpu` of a token, `call` of a call."""
    turns = zip(samples["platform"], samples[_FLOOR], strict=True)
    return statistics.median(ours[f"{unit} control"] / bare[f"{unit} server"] for ours, bare in turns)


def _cpu_figures(pace: str, streams: int, samples: dict[str, list[Sample]], target: Target | None) -> list[Figure]:
    whole, alone = samples["platform"], samples["engine"]
    added = [
        {"added": a["cpu control"] + a["cpu replica"] - b["cpu engine"]} for a, b in zip(whole, alone, strict=True)
    ]
    metric = f"processor time added to a token, {pace}"
    figures = [_figure(metric, streams, median(added, "added"), "µs", target=target)]
    figures += _parts_of_a_token(pace, streams, whole, ("client", "control", "replica"))
    return figures + _parts_of_a_token(pace, streams, alone, ("engine",))


def _parts_of_a_token(
    pace: str, streams: int, turns: Sequence[Sample], parts: Sequence[str], prefix: str = ""
) -> list[Figure]:
    metric = f"processor time of a token, {pace}"
    return [_figure(metric, streams, median(turns, f"cpu {part}"), "µs", f"{prefix}{part}") for part in parts]


def _figure(
    metric: str, streams: int, value: float, unit: str, subject: str = "platform", target: Target | None = None
) -> Figure:
    return Figure(_BENCH, metric, streams, value, unit, subject, target)


PARTS = (measure_paced, measure_fast)
