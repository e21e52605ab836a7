"""Each metric: what is asked of the engines, and the rows that it gives."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tests.bench.common.figures import Sample, median
from tests.bench.common.processes import Child
from tests.bench.engine import workloads
from tests.bench.engine.plan import GREEDY_TOKENS
from tests.bench.engine.rows import OVERHEAD_TARGET
from tests.bench.engine.subjects.base import Job
from tests.bench.engine.turns import Turns
from tests.bench.engine.workloads import Prompts

Children = Mapping[str, Child]
_MEMORY_BATCH = 8


def _times(process: Child, jobs: Sequence[Job]) -> list[list[float]]:
    times: list[list[float]] = process.ask(do="run", jobs=workloads.as_json(jobs))["times"]
    return times


def decode(turns: Turns, children: Children, prompts: Prompts) -> None:
    """Tokens a second while all of a batch decode; of ours, too, what a tick costs beside its runs."""
    for batch in turns.plan.batches:

        def turn(process: Child, batch: int = batch) -> Sample:
            jobs = workloads.decode_jobs(prompts, batch, turns.plan.decode_tokens)
            said = process.ask(do="run", jobs=workloads.as_json(jobs))
            return {**workloads.decode_sample(said["times"]), "own_ms": said.get("own_ms", 0.0)}

        samples = turns.take(children, turn)
        turns.report(samples, {"decode": ("decode", "tokens/s")}, batch)
        for name in samples:
            if turns.entrants[name].is_ours:
                own = median(samples[name], "own_ms")
                turns.add(name, "tick less its runs", batch, own, "ms", target=OVERHEAD_TARGET)


def prefill(turns: Turns, children: Children, prompts: Prompts) -> None:
    """Prompt tokens a second, to the first token."""
    length = turns.plan.prefill_length

    def turn(process: Child) -> Sample:
        return workloads.prefill_sample(_times(process, [Job(0.0, prompts.make(length), 1)]), length)

    turns.report(turns.take(children, turn), {"prefill": ("prefill", "tokens/s")})


def arrivals(turns: Turns, children: Children, prompts: Prompts) -> None:
    """Poisson arrivals of mixed lengths, the same for all, at two thirds of what ours bears; one turn."""
    ours = next(name for name in children if turns.entrants[name].is_ours)
    count = turns.plan.num_arrivals
    burst = workloads.arrival_jobs(prompts, count, 1e6)
    rate = 2 / 3 * count / max(each[-1] for each in _times(children[ours], burst))
    turns.add(ours, "arrivals a second", 1, rate, "1/s")

    def turn(process: Child) -> Sample:
        jobs = workloads.arrival_jobs(prompts, count, rate)
        return workloads.arrival_sample(jobs, _times(process, jobs))

    samples = turns.take(children, turn, 1)
    parts = [f"{what} p{share}" for what in ("TTFT", "ITL") for share in (50, 95)]
    turns.report(samples, {part: (f"arrivals: {part}", "ms") for part in parts})


def prefix(turns: Turns, children: Children, prompts: Prompts) -> None:
    """The first token of prompts that share 512 tokens with one that came before."""

    def turn(process: Child) -> Sample:
        jobs = workloads.prefix_jobs(prompts, turns.plan.num_followers)
        return workloads.prefix_sample([_times(process, [job])[0][0] for job in jobs])

    units = {"first": "ms", "following": "ms", "times shorter": "times"}
    metrics = {part: (f"prefix: {part}", unit) for part, unit in units.items()}
    turns.report(turns.take(children, turn), metrics, compared=["first", "following"])


def memory(turns: Turns, children: Children, prompts: Prompts) -> None:
    """Resident memory: loaded with room for the largest batch, its peak until then, and after a batch of 8."""

    def turn(process: Child) -> Sample:
        loaded = process.ask(do="memory")
        _times(process, workloads.decode_jobs(prompts, _MEMORY_BATCH, turns.plan.decode_tokens))
        after = process.ask(do="memory")
        found = {"loaded": loaded["resident"], "peak": loaded["peak"], "after a batch of 8": after["resident"]}
        return {part: num_bytes / 2**20 for part, num_bytes in found.items()}

    metrics = {part: (f"resident memory: {part}", "MiB") for part in ("loaded", "peak", "after a batch of 8")}
    turns.report(turns.take(children, turn, 1), metrics, compared=["loaded", "after a batch of 8"])


def accuracy(turns: Turns, children: Children, prompts: Prompts) -> None:
    """The last logits beside plain numpy's, and whether greedy answers are the peers' who run the same file."""
    reference = np.load(turns.shape.folder / "reference.npz")
    prompt = reference["prompt"].tolist()

    def turn(folder: str, process: Child) -> Sample:
        path = Path(folder) / "logits.npy"
        process.ask(do="logits", prompt=prompt, to=str(path))
        return {"cosine": workloads.cosine(np.load(path).ravel(), reference["logits"])}

    with TemporaryDirectory() as folder:
        for name, samples in turns.take(children, partial(turn, folder), 1).items():
            turns.add(name, "cosine of the last logits to fp32", 1, samples[0]["cosine"], "cosine")
    _agreement(turns, children, prompt)


def _agreement(turns: Turns, children: Children, prompt: list[int]) -> None:
    """Into the facts: how far our greedy tokens are those of a peer with the same file, or with the same float32."""
    answers: dict[str, list[int]] = {}
    names = turns.alive(children)
    for name, other in product(names, names):
        one, another = turns.entrants[name], turns.entrants[other]
        if one.precision == another.precision and one.meets(another):
            for each in {name, other} - answers.keys():
                asked = children[each].ask(do="greedy", prompt=prompt, num_tokens=GREEDY_TOKENS)
                answers[each] = asked["token_ids"]
            told = workloads.agreement(answers[name], answers[other])
            turns.found.facts[f"greedy tokens of {name} and {other}, {turns.shape.name}"] = told


METRIC_OF: dict[str, Callable[[Turns, Children, Prompts], None]] = {  # in this order
    "memory": memory,  # before anything else has filled it
    "decode": decode,
    "prefill": prefill,
    "arrivals": arrivals,
    "prefix": prefix,
    "accuracy": accuracy,
}
