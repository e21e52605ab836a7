"""What the streaming methods return: iterators that can be closed, and answers that know their usage at the end."""

from types import TracebackType
from typing import Generic, TypeVar

from tidemill.async_transport import AsyncTransport
from tidemill.plan_run import PlanRun
from tidemill.plans.answers import Answer
from tidemill.results import TokenLogprob, Usage
from tidemill.steps import Emit, Line, Plan
from tidemill.transport import SyncTransport

Item = TypeVar("Item")


class _AnswerFacts:
    """What a text stream knows besides its pieces."""

    _answer: Answer

    @property
    def text(self) -> str:
        """All text that has been read until now."""
        return self._answer.text

    @property
    def finish_reason(self) -> str:
        """stop, length, cancelled, session_stopped or error; empty until the stream ended."""
        return self._answer.finish_reason

    @property
    def usage(self) -> Usage | None:
        """What the generation used; None until the stream ended, and when it was cut."""
        return self._answer.usage

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """Of the tokens that have come until now, with `top_logprobs`."""
        return tuple(self._answer.logprobs)

    @property
    def tokens_per_second(self) -> float | None:
        """How fast tokens came after the first piece; None until 16 did, in 0.1 s or more."""
        return self._answer.tokens_per_second


class Stream(Generic[Item]):
    """Items as they come, read by one thread; `close` may be called from any.

    The call starts with the first item. `with` closes it, which cancels what is still under way.
    """

    def __init__(self, transport: SyncTransport, plan: Plan[None], line: Line) -> None:
        self._transport = transport
        self._run = PlanRun(plan)
        self._line = line

    def __iter__(self) -> "Stream[Item]":
        return self

    def __next__(self) -> Item:
        """The next item. Raises a TidemillError when the stream broke, after all that came before."""
        try:
            while (step := self._run.next_step()) is not None:
                if isinstance(step, Emit):
                    item: Item = step.item
                    return item
                self._transport.perform(step, self._run)
        except BaseException:
            self._run.abandon()
            raise
        raise StopIteration

    def close(self) -> None:
        """Cancel what is still under way; a stream that ended stays as it is."""
        self._line.close()

    def __enter__(self) -> "Stream[Item]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TextStream(_AnswerFacts, Stream[str]):
    """The text of one generation, piece by piece."""

    def __init__(self, transport: SyncTransport, plan: Plan[None], answer: Answer) -> None:
        super().__init__(transport, plan, answer.line)
        self._answer = answer


class AsyncStream(Generic[Item]):
    """Items as they come, read by one task. `async with` closes it, which cancels what is still under way."""

    def __init__(self, transport: AsyncTransport, plan: Plan[None], line: Line) -> None:
        self._transport = transport
        self._run = PlanRun(plan)
        self._line = line

    def __aiter__(self) -> "AsyncStream[Item]":
        return self

    async def __anext__(self) -> Item:
        """The next item. Raises a TidemillError when the stream broke, after all that came before."""
        try:
            while (step := self._run.next_step()) is not None:
                if isinstance(step, Emit):
                    item: Item = step.item
                    return item
                await self._transport.perform(step, self._run)
        except BaseException:
            self._run.abandon()
            raise
        raise StopAsyncIteration

    async def close(self) -> None:
        """Cancel what is still under way; a stream that ended stays as it is."""
        self._line.close()

    async def __aenter__(self) -> "AsyncStream[Item]":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncTextStream(_AnswerFacts, AsyncStream[str]):
    """The text of one generation, piece by piece."""

    def __init__(self, transport: AsyncTransport, plan: Plan[None], answer: Answer) -> None:
        super().__init__(transport, plan, answer.line)
        self._answer = answer
