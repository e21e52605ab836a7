"""How much is measured, and how long that takes."""

from collections.abc import Iterator
from dataclasses import dataclass

METRICS = ("memory", "decode", "prefill", "arrivals", "prefix", "accuracy", "cold")
GREEDY_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """Models, families of precisions, numbers of turns, sequences and tokens."""

    shapes: tuple[str, ...]
    families: tuple[str, ...]
    batches: tuple[int, ...]
    turns: int
    decode_tokens: int  # of each sequence while all of a batch decode
    prefill_length: int
    metrics: tuple[str, ...]
    num_arrivals: int = 24
    num_followers: int = 3  # who share a prefix with one who came before
    cold_starts: int = 3
    left_out: tuple[str, ...] = ()  # precisions
    with_peers: bool = True


FULL = Plan(
    shapes=("125m", "16m"),
    families=("fp32", "int8", "int4"),
    batches=(1, 4, 8, 16, 32),
    turns=3,
    decode_tokens=16,
    prefill_length=512,
    metrics=METRICS,
)
QUICK = Plan(
    shapes=("125m",),
    families=("int8",),
    left_out=("int8-b128",),
    batches=(1, 8, 32),
    turns=2,
    decode_tokens=16,
    prefill_length=512,
    metrics=("decode", "prefill", "memory", "accuracy"),
)

# For the estimate, of one engine on two processors with AVX2: tokens a second alone, in a large batch, and of a prompt;
# seconds of a start.
_PACE = {"125m": (100.0, 330.0, 400.0), "16m": (600.0, 2500.0, 3000.0)}
_START_SECONDS = {"125m": 3.0, "16m": 1.5}


def seconds_of(plan: Plan, shape: str, metric: str, num_engines: float) -> float:
    """About how long a metric of one model takes with so many engines in the same turns."""
    alone, together, prompt = _PACE[shape]

    def decoding(batch: int) -> float:
        length = 2 * plan.decode_tokens if batch == 1 else plan.decode_tokens + 2 * batch
        return batch * length / min(alone * batch, together)

    each = {
        "decode": plan.turns * sum(decoding(batch) for batch in plan.batches),
        "prefill": plan.turns * plan.prefill_length / prompt,
        "arrivals": 1.5 * plan.num_arrivals * (143 / prompt + 27 / together) + plan.num_arrivals * 27 / alone / 4,
        "prefix": plan.turns * (1 + plan.num_followers) * 530 / prompt,
        "cold": (3 * plan.cold_starts + 2) * _START_SECONDS[shape],
        "memory": decoding(8),
        "accuracy": GREEDY_TOKENS / alone + 1.0,
    }[metric]
    return num_engines * each


def pieces(plan: Plan, num_engines: dict[tuple[str, str], float]) -> Iterator[tuple[str, str, str, float]]:
    """(model, family, metric, seconds) of the whole plan; the loading of all is counted with the first metric."""
    for (shape, family), count in num_engines.items():
        for place, metric in enumerate(plan.metrics):
            loading = 0.0 if place else count * _START_SECONDS[shape]
            yield shape, family, metric, loading + seconds_of(plan, shape, metric, count)
