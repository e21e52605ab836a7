"""What is asked of every engine alike, and the figures that its tokens' times give."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from tests.bench.common.figures import Sample, quantile
from tests.bench.engine.subjects.base import Job

DECODE_PROMPT = 16  # tokens; one piece of a prompt in every engine


@dataclass(slots=True)
class Prompts:
    """Random prompts, each new: what an engine kept of an earlier one is of no use."""

    vocabulary_size: int
    seed: int = 1

    def make(self, length: int) -> list[int]:
        """The next one; its tokens are in every vocabulary, and none is special."""
        self.seed += 1
        return np.random.default_rng(self.seed).integers(300, self.vocabulary_size, length).tolist()


def decode_jobs(prompts: Prompts, batch: int, num_tokens: int) -> list[Job]:
    """So many at once, long enough that all decode together for `num_tokens`, wherever they join one by one."""
    length = num_tokens + 2 * batch if batch > 1 else 2 * num_tokens
    return [Job(0.0, prompts.make(DECODE_PROMPT), length) for _ in range(batch)]


def decode_sample(times: Sequence[Sequence[float]]) -> Sample:
    """Tokens a second while all decode."""
    begin, end = max(each[0] for each in times), min(each[-1] for each in times)
    assert end > begin, "the sequences never decoded all together"
    num_tokens = sum(begin < time <= end for each in times for time in each)
    return {"decode": num_tokens / (end - begin)}


def prefill_sample(times: Sequence[Sequence[float]], length: int) -> Sample:
    """From the prompt to the first token."""
    return {"prefill": length / times[0][0]}


def arrival_jobs(prompts: Prompts, count: int, per_second: float) -> list[Job]:
    """Poisson arrivals; prompts of 16 to 512 tokens, answers of 8 to 64, short ones more often."""
    random = np.random.default_rng(11)
    moments = np.cumsum(random.exponential(1 / per_second, count))
    lengths = np.exp(random.uniform(np.log(16), np.log(512), count)).astype(int)
    answers = np.exp(random.uniform(np.log(8), np.log(64), count)).astype(int)
    plan = zip(moments, lengths, answers, strict=True)
    return [Job(float(at), prompts.make(int(length)), int(answer)) for at, length, answer in plan]


def arrival_sample(jobs: Sequence[Job], times: Sequence[Sequence[float]]) -> Sample:
    """Waiting for the first token and between tokens, in milliseconds."""
    firsts = [1e3 * (each[0] - job.at) for job, each in zip(jobs, times, strict=True)]
    gaps = [1e3 * float(gap) for each in times for gap in np.diff(each)]
    found = {f"TTFT p{share:.0f}": quantile(firsts, share / 100) for share in (50, 95)}
    return found | {f"ITL p{share:.0f}": quantile(gaps, share / 100) for share in (50, 95)}


def prefix_jobs(prompts: Prompts, num_followers: int) -> list[Job]:
    """One prompt of 512 tokens and 16 of its own, then others with the same 512; to be asked one after the other."""
    shared = prompts.make(512)
    return [Job(0.0, shared + prompts.make(16), 4) for _ in range(1 + num_followers)]


def prefix_sample(first_tokens: Sequence[float]) -> Sample:
    """The first token of the first, and the median of those that follow, in milliseconds."""
    first, following = first_tokens[0], float(np.median(first_tokens[1:]))
    return {"first": 1e3 * first, "following": 1e3 * following, "times shorter": first / following}


def agreement(one: Sequence[int], other: Sequence[int]) -> str:
    """How far two answers to one prompt go together."""
    for number, (a, b) in enumerate(zip(one, other, strict=True)):
        if a != b:
            return f"differ first at token {number + 1} of {len(one)}: {a} and {b}"
    return f"agree in all {len(one)} tokens"


def cosine(given: np.ndarray, reference: np.ndarray) -> float:
    """How alike two rows of logits are."""
    return float(given @ reference / (np.linalg.norm(given) * np.linalg.norm(reference)))


def as_json(jobs: Sequence[Job]) -> list[dict[str, object]]:
    """For a child."""
    return [asdict(job) for job in jobs]
