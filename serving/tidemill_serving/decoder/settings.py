"""What an operator may set on the decoder engine."""

import os
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class DecoderSettings:
    """Checked when made; raises ValueError with the setting's name and what it may be."""

    num_slots: int = 8
    """Generations that run at once."""

    num_waiting_places: int = 4
    """Generations that may wait for a slot; beyond them the engine is busy."""

    token_budget: int | None = None
    """Tokens of prompts and answers that the cache may hold at once; None: what the slots of running ones hold."""

    prefix_cache: bool = True
    """Whether what was computed for a prompt is kept for others that begin alike."""

    num_cache_slots: int = 8
    """Slots beside those that run, for what is kept; it counts against `token_budget`, and gives way."""

    num_threads: int = 0
    """Threads of one run; 0: one for each processor that this process may use."""

    inter_token_budget: timedelta = timedelta(milliseconds=50)
    """How long running generations may wait for their next token because of another one's prompt."""

    max_chunk_length: int = 512
    """The longest piece of a prompt that is run at once, also while nothing else runs; tokens."""

    spinning: bool = True
    """Whether threads wait for work actively within a run: faster, more processor time."""

    def __post_init__(self) -> None:
        _check_range("num_slots", self.num_slots, 1, 1024)
        _check_range("num_waiting_places", self.num_waiting_places, 0, 1024)
        _check_range("num_cache_slots", self.num_cache_slots, 0, 1024)
        _check_range("num_threads", self.num_threads, 0, 1024)
        _check_range("max_chunk_length", self.max_chunk_length, 16, 65_536)
        if self.token_budget is not None:
            _check_range("token_budget", self.token_budget, 1, 2**40)
        if not timedelta(milliseconds=1) <= self.inter_token_budget <= timedelta(seconds=60):
            raise ValueError(f"inter_token_budget is {self.inter_token_budget}; it may be 1 ms to 60 s")

    @property
    def num_kept_slots(self) -> int:
        """Slots for what is kept; none when nothing is."""
        return self.num_cache_slots if self.prefix_cache else 0

    def threads(self) -> int:
        """The number of threads of one run."""
        return self.num_threads or len(os.sched_getaffinity(0))


def _check_range(name: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {value}; it may be {lowest} to {highest}")
