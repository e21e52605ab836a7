"""Several generations with the same settings, each for itself: one that fails does not fail the others."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace

from tidemill_services.domain.errors import TidemillError
from tidemill_services.domain.generation import ChatInput, FinishReason, PromptInput, Usage, seed_of
from tidemill_services.domain.logprobs import Logprobs
from tidemill_services.faults import log_fault
from tidemill_services.generation import Generations
from tidemill_services.generation_admission import Admission
from tidemill_services.generation_events import End, Event, Waiting
from tidemill_services.generation_run import SILENCE_SIGN_SECONDS
from tidemill_services.whole_answer import whole_answer

MAX_CONCURRENT = 32  # inputs of one batch that wait or run; the others follow, so that a batch cannot fill the queue


@dataclass(frozen=True, slots=True)
class BatchInput:
    """One input, what it may run with, and its path in the request."""

    admission: Admission
    prompt: PromptInput | ChatInput
    field: str


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How one input ended."""

    index: int
    text: str
    end: End
    logprobs: Logprobs | None = None  # of all its tokens, if they were asked for


_prompt_groups = itertools.count(1)


def answers_to(
    admission: Admission, prompts: Sequence[tuple[str, PromptInput | ChatInput]], num_answers: int
) -> list[BatchInput]:
    """The inputs that make so many answers to each prompt, which comes with its path in the request.

    A prompt's answers lie together. Each answer's seed is the request's with its place added.
    """
    inputs: list[BatchInput] = []
    for path, prompt in prompts:
        group = next(_prompt_groups) if num_answers > 1 else 0
        for place in range(num_answers):
            options = replace(admission.options, seed=seed_of(admission.options.seed, len(inputs)))
            own = replace(admission, options=options, prompt_group=group, counts_prompt=place == 0)
            inputs.append(BatchInput(own, prompt, path))
    return inputs


async def run_batch(
    generations: Generations, inputs: list[BatchInput], *, deadline: float | None
) -> AsyncGenerator[BatchResult | Waiting]:
    """Yield the results in the order in which they end, and a sign of life in long silences."""
    # Whoever stops reading stops the batch, instead of having all its results kept here.
    results: asyncio.Queue[BatchResult] = asyncio.Queue(maxsize=MAX_CONCURRENT)

    async def run(index: int) -> None:
        await results.put(await _run_input(generations, index, inputs[index], deadline))

    async with _running(run, len(inputs)):
        num_left = len(inputs)
        while num_left:
            try:
                async with asyncio.timeout(SILENCE_SIGN_SECONDS):
                    result = await results.get()
            except TimeoutError:
                yield generations.waiting(inputs[0].admission.served.name)
                continue
            num_left -= 1
            yield result


async def stream_batch(
    generations: Generations, inputs: list[BatchInput], *, deadline: float | None
) -> AsyncGenerator[tuple[int, Event]]:
    """Yield the events of all inputs as they come, each with its input's index; every input ends with its End.

    A reader that stops holds them all back, each within its own bounds.
    """
    if len(inputs) == 1:  # nothing to join: the events need not change tasks
        async with aclosing(_events(generations, inputs[0], deadline)) as events:
            async for event in events:
                yield 0, event
        return
    joined: asyncio.Queue[tuple[int, Event]] = asyncio.Queue(maxsize=MAX_CONCURRENT)

    async def run(index: int) -> None:
        async with aclosing(_events(generations, inputs[index], deadline)) as events:
            async for event in events:
                await joined.put((index, event))

    async with _running(run, len(inputs)):
        num_left = len(inputs)
        while num_left:
            index, event = await joined.get()
            num_left -= isinstance(event, End)
            yield index, event


@asynccontextmanager
async def _running(run: Callable[[int], Awaitable[None]], num_inputs: int) -> AsyncGenerator[None]:
    """Run all inputs, some at a time, within the block; what is left at its end is cancelled."""
    places = asyncio.Semaphore(MAX_CONCURRENT)

    async def run_in_place(index: int) -> None:
        async with places:
            await run(index)

    async def run_all() -> None:
        async with asyncio.TaskGroup() as group:
            for index in range(num_inputs):
                group.create_task(run_in_place(index), name=f"batch-input-{index}")

    work = asyncio.create_task(run_all(), name="batch")
    try:
        yield
    finally:
        work.cancel()
        await asyncio.wait({work})


async def _run_input(
    generations: Generations, index: int, batch_input: BatchInput, deadline: float | None
) -> BatchResult:
    async with aclosing(_events(generations, batch_input, deadline)) as events:
        answer = await whole_answer(events)
    return BatchResult(index, answer.text, answer.end, answer.logprobs)


async def _events(generations: Generations, batch_input: BatchInput, deadline: float | None) -> AsyncGenerator[Event]:
    """One input's events; whatever goes wrong is its End."""
    try:
        admitted = await batch_input.admission.take(batch_input.prompt, field=batch_input.field)
        async with aclosing(generations.stream(admitted, deadline=deadline)) as events:
            async for event in events:
                yield event
    except TidemillError as error:
        yield End(FinishReason.ERROR, Usage(), error)
    except Exception as error:  # noqa: BLE001 -- one input's fault is not the others'
        yield End(FinishReason.ERROR, Usage(), log_fault(error, "an input of a batch"))
