"""An answer while it grows."""

import time

from tidemill.results import Completion, TokenLogprob, Usage
from tidemill.steps import Line


class Pace:
    """How fast tokens come: those after the first piece, over the time between the first piece and the last."""

    SMALLEST_SAMPLE = 16
    """Tokens; fewer say more about the network than about the model."""
    SHORTEST_SAMPLE = 0.1
    """Seconds; within less, pieces that waited together look like a very fast model."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._last = 0.0
        self._num_tokens = 0

    def add(self, num_tokens: int, now: float) -> None:
        """Count a piece that came at `now`, in seconds of any clock that never goes back."""
        if self._first is None:
            self._first = now
        else:
            self._num_tokens += num_tokens
        self._last = now

    @property
    def tokens_per_second(self) -> float | None:
        """None when too few tokens came, or within too short a time, for a number that means something."""
        seconds = 0.0 if self._first is None else self._last - self._first
        if self._num_tokens < self.SMALLEST_SAMPLE or seconds < self.SHORTEST_SAMPLE:
            return None
        return self._num_tokens / seconds


class Answer:
    """A generation's answer while it grows."""

    def __init__(self) -> None:
        self.line = Line()
        self.finish_reason = ""
        self.usage: Usage | None = None
        self.sequence_number = 0
        """Of the last message that counts."""
        self.logprobs: list[TokenLogprob] = []
        self._texts: list[str] = []
        self._pace = Pace()

    @property
    def has_ended(self) -> bool:
        """Whether its last message came, which says how it ended."""
        return self.finish_reason != ""

    @property
    def text(self) -> str:
        """All text until now."""
        return "".join(self._texts)

    @property
    def tokens_per_second(self) -> float | None:
        """How fast its tokens came; see Pace."""
        return self._pace.tokens_per_second

    def add(self, text: str, num_tokens: int) -> None:
        """Take the next piece, which has just come."""
        self._texts.append(text)
        self._pace.add(num_tokens, time.monotonic())

    def completion(self) -> Completion:
        """The whole answer."""
        return Completion(
            text=self.text, finish_reason=self.finish_reason, usage=self.usage, logprobs=tuple(self.logprobs)
        )
