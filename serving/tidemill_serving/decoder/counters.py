"""What the decoder has done since its start. Written by the engine's thread."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Only ever grows."""

    num_decode_runs: int = 0
    num_decode_tokens: int = 0  # one for each row of each run
    decode_seconds: float = 0.0
    num_prefill_runs: int = 0
    num_prefill_tokens: int = 0  # prompt tokens that were computed
    prefill_seconds: float = 0.0
    num_prompt_tokens: int = 0  # of prompts that are in the cache as a whole
    num_cached_prompt_tokens: int = 0  # of these, what was found there

    def saw_decode(self, seconds: float, num_rows: int) -> None:
        """A decode run ended."""
        self.num_decode_runs += 1
        self.num_decode_tokens += num_rows
        self.decode_seconds += seconds

    def saw_prefill(self, seconds: float, num_tokens: int) -> None:
        """A piece of a prompt was computed."""
        self.num_prefill_runs += 1
        self.num_prefill_tokens += num_tokens
        self.prefill_seconds += seconds

    def saw_prompt(self, num_tokens: int, num_cached: int) -> None:
        """A prompt is in the cache as a whole; so much of it was found there."""
        self.num_prompt_tokens += num_tokens
        self.num_cached_prompt_tokens += num_cached
