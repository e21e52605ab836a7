"""How much is measured: the full bench, the quick one, and a trial of the bench itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Numbers of turns, streams and tokens."""

    whole_streams: tuple[int, ...]
    whole_turns: int
    whole_tokens: int  # of each answer
    first_token_turns: int
    wire_streams: tuple[int, ...]
    wire_turns: int
    paced_tokens: int  # of each answer, one a tick
    saturated_tokens: int
    saturated_rounds: int
    unary_rounds: int  # calls of each of 16 callers
    num_admissions: int
    with_peers: bool = True


FULL = Plan(
    whole_streams=(1, 8, 32, 64),
    whole_turns=5,
    whole_tokens=48,
    first_token_turns=12,
    wire_streams=(1, 16, 64),
    wire_turns=7,
    paced_tokens=400,
    saturated_tokens=900,
    saturated_rounds=4,
    unary_rounds=100,
    num_admissions=5_000,
)
QUICK = Plan(
    whole_streams=(1, 8, 32),
    whole_turns=2,
    whole_tokens=24,
    first_token_turns=4,
    wire_streams=(16, 64),
    wire_turns=3,
    paced_tokens=200,
    saturated_tokens=900,
    saturated_rounds=1,
    unary_rounds=40,
    num_admissions=2_000,
)
TRIAL = Plan(
    whole_streams=(1, 8),
    whole_turns=1,
    whole_tokens=4,
    first_token_turns=1,
    wire_streams=(4,),
    wire_turns=1,
    paced_tokens=8,
    saturated_tokens=16,
    saturated_rounds=1,
    unary_rounds=2,
    num_admissions=20,
    with_peers=False,
)
