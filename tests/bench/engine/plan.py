"""How much is measured."""

from dataclasses import dataclass

METRICS = ("decode", "prefill", "arrivals", "prefix", "cold", "memory", "accuracy")


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
    num_followers: int = 6  # who share a prefix with one who came before
    cold_starts: int = 3
    left_out: tuple[str, ...] = ()  # precisions
    with_peers: bool = True


FULL = Plan(
    shapes=("125m", "16m"),
    families=("fp32", "int8", "int4"),
    batches=(1, 4, 8, 16, 32),
    turns=3,
    decode_tokens=24,
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
