"""What sessions are used for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Use:
    """What ran: generations that a replica took, and their tokens."""

    num_generations: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Use") -> "Use":
        """Both together."""
        return Use(
            self.num_generations + other.num_generations,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def __sub__(self, other: "Use") -> "Use":
        """What is in this and not in the other."""
        return Use(
            self.num_generations - other.num_generations,
            self.prompt_tokens - other.prompt_tokens,
            self.completion_tokens - other.completion_tokens,
        )
