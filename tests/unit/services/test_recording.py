"""A recording: whoever reads it, whenever, from wherever, gets the same events under the same numbers."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill_services.domain.errors import ReaderTooSlowError, ReplicaLostError
from tidemill_services.domain.generation import FinishReason, Usage
from tidemill_services.domain.model import ModelState
from tidemill_services.generation_events import Delta, End, Event, Waiting
from tidemill_services.recording import Recording
from tidemill_services.scaler.replicas import WaitStatus

END = End(FinishReason.STOP, Usage(3, 4))
SIGN = Waiting(WaitStatus(ModelState.READY, None, 1.0, None, 0))


def text_of(events: list[tuple[int, Event]]) -> str:
    return "".join(event.text for _, event in events if isinstance(event, Delta))


def num_tokens_of(events: list[tuple[int, Event]]) -> int:
    return sum(event.num_tokens for _, event in events if isinstance(event, Delta))


async def rest(recording: Recording, after: int = 0) -> list[tuple[int, Event]]:
    async with aclosing(recording.read(after)) as events:
        return [found async for found in events]


async def some(recording: Recording, after: int, num_events: int) -> list[tuple[int, Event]]:
    """The next events, as far as they are there already; then the reader goes away."""
    found: list[tuple[int, Event]] = []
    try:
        async with asyncio.timeout(0), aclosing(recording.read(after)) as events:
            async for event in events:
                found.append(event)
                if len(found) == num_events:
                    break
    except TimeoutError:
        pass
    return found


async def test_a_reader_that_keeps_up_gets_every_piece_and_a_later_one_the_same() -> None:
    recording = Recording()
    seen = []
    for text in ("a", "", "ü", "d"):
        recording.add(text, 1)
        seen += await some(recording, len(seen), 1)
    recording.finish(END)
    seen += await rest(recording, len(seen))
    assert [event for _, event in seen] == [Delta("a", 1), Delta("", 1), Delta("ü", 1), Delta("d", 1), END]
    assert [number for number, _ in seen] == [1, 2, 3, 4, 5]
    assert await rest(recording) == seen
    assert await rest(recording, 3) == seen[3:]
    assert await rest(recording, 5) == []
    assert recording.last_taken == 5


async def joined(recording: Recording, after: int) -> list[tuple[int, Event]]:
    async with aclosing(recording.read(after, joins_end=True)) as events:
        return [found async for found in events]


async def test_the_last_text_comes_with_the_end_to_whom_that_suits_if_both_are_there() -> None:
    recording = Recording()
    recording.add("a", 1)
    assert await some(recording, 0, 1) == [(1, Delta("a", 1))]
    recording.add("b", 2)
    recording.finish(END)
    assert await joined(recording, 0) == [(1, Delta("a", 1)), (3, replace(END, last=Delta("b", 2)))]
    assert (recording.last_taken, recording.num_tokens_taken, recording.is_read) == (3, 3, True)
    assert await rest(recording, 1) == [(2, Delta("b", 2)), (3, END)]
    assert await joined(recording, 2) == [(3, END)]


async def test_an_end_has_no_text_that_was_there_before_it() -> None:
    recording = Recording()
    recording.add("a", 1)
    async with aclosing(recording.read(0, joins_end=True)) as events:
        assert await anext(events) == (1, Delta("a", 1))
        recording.finish(END)
        assert await anext(events) == (2, END)


async def test_who_wants_the_whole_is_woken_by_its_end_alone() -> None:
    recording = Recording()
    reading = asyncio.create_task(recording.whole())
    await asyncio.sleep(0)
    for word in ("some ", "more ", "text"):
        recording.add(word, 1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert recording.last_taken == 0
    recording.finish(END)
    answer = await reading
    assert (answer.text, answer.end) == ("some more text", END)
    assert await rest(recording) == [(1, Delta("some more text", 3)), (2, END)]
    assert (await recording.whole()).text == answer.text
    assert recording.is_read


async def test_who_wants_the_whole_has_it_whatever_its_length() -> None:
    recording = Recording(max_bytes=1_000)
    reading = asyncio.create_task(recording.whole())
    await asyncio.sleep(0)
    for _ in range(100):
        assert recording.add("x" * 100, 1)
        await asyncio.sleep(0)
    recording.finish(END)
    assert (await reading).text == "x" * 10_000
    with pytest.raises(ReaderTooSlowError):  # its beginning is gone
        await recording.whole()


async def test_a_failure_comes_to_who_wants_the_whole() -> None:
    recording = Recording()
    reading = asyncio.create_task(recording.whole())
    await asyncio.sleep(0)
    recording.fail(ReplicaLostError())
    with pytest.raises(ReplicaLostError):
        await reading


async def test_what_waits_for_a_reader_is_one_piece() -> None:
    recording = Recording()
    for text in "abc":
        recording.add(text, 2)
    recording.finish(END)
    assert await rest(recording) == [(1, Delta("abc", 6)), (2, END)]


async def test_a_sign_of_life_has_the_number_of_the_event_before_it_and_is_not_kept() -> None:
    recording = Recording()
    recording.add("a", 1)
    async with aclosing(recording.read(0)) as events:
        assert await anext(events) == (1, Delta("a", 1))
        following = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        recording.sign(SIGN)
        assert await following == (1, SIGN)
    recording.finish(END)
    assert await rest(recording) == [(1, Delta("a", 1)), (2, END)]


async def test_a_failure_comes_to_every_reader_after_what_is_there() -> None:
    recording = Recording()
    recording.add("a", 1)
    recording.fail(ReplicaLostError())
    for _ in range(2):
        async with aclosing(recording.read(0)) as events:
            assert await anext(events) == (1, Delta("a", 1))
            with pytest.raises(ReplicaLostError):
                await anext(events)


async def test_over_its_limit_it_drops_what_was_taken_and_is_full_when_nobody_takes() -> None:
    recording = Recording(max_bytes=2_000)
    for number in range(200):
        assert recording.add(f"{number:040}", 1)
        assert await some(recording, number, 1) == [(number + 1, Delta(f"{number:040}", 1))]
    assert recording.num_bytes <= 5_000
    with pytest.raises(ReaderTooSlowError):
        await rest(recording)
    is_full = [not recording.add("x" * 40, 1) for _ in range(100)]
    assert is_full[-1]
    recording.finish(END)
    last, end = await rest(recording, 200)
    assert last == (201, Delta("x" * 4_000, 100))
    assert end == (202, END)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=30),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 6)), max_size=60),
)
def test_readers_that_come_and_go_get_the_whole_text_once(texts: list[str], steps: list[tuple[int, int, int]]) -> None:
    async def play() -> None:
        recording = Recording()
        waiting = list(texts)
        readers: list[list[tuple[int, Event]]] = [[], [], [], []]
        for reader, num_added, num_taken in steps:
            for text in waiting[:num_added]:
                recording.add(text, 1)
            del waiting[:num_added]
            if num_taken:  # from where this one was cut before
                seen = readers[reader]
                seen += await some(recording, seen[-1][0] if seen else 0, num_taken)
        for text in waiting:
            recording.add(text, 1)
        recording.finish(END)
        for seen in readers:
            if not (seen and seen[-1][1] is END):
                seen.extend(await rest(recording, seen[-1][0] if seen else 0))
            assert text_of(seen) == "".join(texts)
            assert num_tokens_of(seen) == len(texts)
            assert [number for number, _ in seen] == list(range(1, len(seen) + 1))
            assert seen == readers[0]

    asyncio.run(play())
