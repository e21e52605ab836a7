"""What the events of one generation say together."""

from collections.abc import AsyncIterator

from tidemill_services.domain.generation import FinishReason, Usage
from tidemill_services.domain.logprobs import Logprobs
from tidemill_services.generation_events import Delta, End, Event


class WholeAnswer:
    """An answer that grows until its end is there."""

    def __init__(self) -> None:
        self.end = End(FinishReason.CANCELLED, Usage())  # unless another one comes
        self.logprobs: Logprobs | None = None  # of all its tokens, if they were asked for
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._texts)

    def take(self, event: Event) -> None:
        """Add what an event says."""
        if isinstance(event, End):
            self.end = event
        elif isinstance(event, Delta):
            self._texts.append(event.text)
            if event.logprobs is not None:
                self.logprobs = self.logprobs or Logprobs()
                self.logprobs.extend(event.logprobs)


async def whole_answer(events: AsyncIterator[Event]) -> WholeAnswer:
    """Read the events to their end. Raises what they do."""
    answer = WholeAnswer()
    async for event in events:
        answer.take(event)
    return answer
