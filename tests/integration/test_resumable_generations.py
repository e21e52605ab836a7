"""Resumable generations over a real store, with scripted events in the place of a replica."""

import asyncio
import hashlib
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tests.databases import sqlite_file
from tidemill_services import resumable as module
from tidemill_services import session_streams
from tidemill_services.domain.errors import (
    DrainingError,
    FieldInvalidError,
    GenerationEndedError,
    GenerationLostError,
    NoSessionError,
    ReaderTooSlowError,
    ReplicaLostError,
    RequestIdReusedError,
    StoreUnavailableError,
)
from tidemill_services.domain.generation import FinishReason, Usage
from tidemill_services.generation_events import Delta, End, Event
from tidemill_services.metrics import Metrics
from tidemill_services.resumable import Patience, ResumableGenerations
from tidemill_services.session_streams import RunningStream, SessionStreams, StopReason
from tidemill_services.store import accounts
from tidemill_services.store.database import Database
from tidemill_services.store.opening import open_database
from tidemill_services.store.requests import RequestKey

USAGE = Usage(3, 5, 0.25, None, 1.5)
END = End(FinishReason.STOP, USAGE)
ENDS = {
    StopReason.CANCELLED: End(FinishReason.CANCELLED, USAGE),
    StopReason.DRAINING: End(FinishReason.ERROR, USAGE, DrainingError()),
    StopReason.READER_TOO_SLOW: End(FinishReason.ERROR, USAGE, ReaderTooSlowError()),
}


def key(request_id: str = "r1", body: bytes = b"body", account_id: str = "first") -> RequestKey:
    return RequestKey(account_id, "Generate", request_id, hashlib.sha256(body).digest())


KEY = key()


class Script:
    """What a generation does: says its words, waits at `hold` before the second, ends; counts how often it ran."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.num_runs = 0
        self.hold = asyncio.Event()
        self.refusal: Exception | None = None
        self.stopped: StopReason | None = None

    async def __call__(self, running: RunningStream) -> AsyncGenerator[Event]:
        assert running.before_start is not None
        await running.before_start()
        self.num_runs += 1
        if self.refusal is not None:
            raise self.refusal
        running.on_stop(self.hold.set)
        for place, word in enumerate(self.words):
            if place == 1:
                await self.hold.wait()
            if running.stopped is not None:
                self.stopped = running.stopped
                yield ENDS[running.stopped]
                return
            running.on_text(word, 1, None)
        yield END


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = open_database(f"sqlite:///{sqlite_file(tmp_path)}")
    await database.open()
    for account_id in ("first", "second"):
        await database.write(accounts.create_account, account_id, "")
    yield database
    await database.close()


@pytest.fixture
def streams() -> SessionStreams:
    return SessionStreams()


@pytest.fixture
async def resumable(database: Database, streams: SessionStreams) -> AsyncIterator[ResumableGenerations]:
    resumable = ResumableGenerations(database, streams, Metrics())
    yield resumable
    await resumable.close()


def impatient(database: Database, streams: SessionStreams, **patience: float) -> ResumableGenerations:
    return ResumableGenerations(database, streams, Metrics(), Patience(**patience))  # type: ignore[arg-type]


async def read(
    resumable: ResumableGenerations,
    script: Script,
    after: int = 0,
    most: int | None = None,
    of: RequestKey = KEY,
) -> list[tuple[int, Event]]:
    """Attach, and read to the end or so many events."""
    found: list[tuple[int, Event]] = []
    with await resumable.attach(of, after, script) as recording:
        async with aclosing(recording.read(after)) as events:
            async for event in events:
                found.append(event)
                if len(found) == most:
                    break
    return found


def text_of(events: list[tuple[int, Event]]) -> str:
    return "".join(event.text for _, event in events if isinstance(event, Delta))


async def test_a_reader_that_was_cut_goes_on_where_it_was(resumable: ResumableGenerations) -> None:
    script = Script("one ", "two ", "three")
    seen = await read(resumable, script, most=1)
    script.hold.set()
    seen += await read(resumable, script, after=1)
    assert text_of(seen) == "one two three"
    assert seen[-1][1] == END
    assert await read(resumable, script) == seen
    assert script.num_runs == 1


async def test_a_hundred_at_once_run_once_and_all_get_the_text(resumable: ResumableGenerations) -> None:
    script = Script(*(f"word {number} " for number in range(50)))
    script.hold.set()
    answers = await asyncio.gather(*(read(resumable, script) for _ in range(100)))
    assert {text_of(answer) for answer in answers} == {"".join(script.words)}
    assert {answer[-1][1] for answer in answers} == {END}
    assert script.num_runs == 1


async def test_another_body_is_refused_and_another_account_is_another_generation(
    resumable: ResumableGenerations, database: Database, streams: SessionStreams
) -> None:
    script = Script("a")
    await read(resumable, script)
    with pytest.raises(RequestIdReusedError):
        await read(resumable, script, of=key(body=b"other"))
    await read(resumable, script, of=key(account_id="second", body=b"other"))
    assert script.num_runs == 2
    restarted = impatient(database, streams)
    with pytest.raises(RequestIdReusedError):
        await read(restarted, script, of=key(body=b"other"))


async def test_after_its_time_the_usage_is_what_is_left(database: Database, streams: SessionStreams) -> None:
    resumable = impatient(database, streams, kept=0.0)
    script = Script("a")
    await read(resumable, script)
    await resumable.close()
    for after in (0, 1):
        with pytest.raises(GenerationEndedError) as refused:
            await read(resumable, script, after=after)
        assert refused.value.usage == USAGE
    assert script.num_runs == 1


async def test_what_was_running_in_a_process_that_died_is_lost(database: Database, streams: SessionStreams) -> None:
    dead, script = impatient(database, streams), Script("a", "b")
    await read(dead, script, most=1)
    restarted = impatient(database, streams)
    with pytest.raises(GenerationLostError):
        await read(restarted, script)
    assert script.num_runs == 1
    await dead.close()


async def test_nothing_runs_before_its_note_is_durable(
    resumable: ResumableGenerations, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, is_there = database.write, asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        await is_there.wait()
        return await write(*arguments)

    monkeypatch.setattr(database, "write", slow)
    script = Script("a")
    reader = asyncio.create_task(read(resumable, script))
    await asyncio.sleep(0.02)
    assert script.num_runs == 0
    is_there.set()
    assert text_of(await reader) == "a"


async def test_a_repeat_is_told_so_before_it_waits_and_whatever_else_is_wrong_with_it(
    resumable: ResumableGenerations, database: Database, streams: SessionStreams
) -> None:
    await read(resumable, Script("a"))
    await resumable.close()
    restarted = impatient(database, streams)

    async def waiting(running: RunningStream) -> AsyncGenerator[Event]:
        assert running.before_wait is not None
        await running.before_wait()
        yield END

    async def refusing(_: RunningStream) -> AsyncGenerator[Event]:
        raise NoSessionError
        yield END

    for start in (waiting, refusing):
        with pytest.raises(GenerationEndedError), await restarted.attach(KEY, 0, start) as recording:
            await anext(recording.read(0))


async def test_notes_that_come_while_others_are_written_are_one_unit_of_work(
    resumable: ResumableGenerations, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, batches = database.write, []

    async def counted(unit: Any, begins: Any, ends: Any) -> Any:
        batches.append((len(begins), len(ends)))
        return await write(unit, begins, ends)

    monkeypatch.setattr(database, "write", counted)
    script = Script("a")
    await asyncio.gather(*(read(resumable, script, of=key(f"r{number}")) for number in range(50)))
    await resumable.close()
    assert [sum(sizes) for sizes in zip(*batches, strict=True)] == [50, 50]
    assert len(batches) < 25


async def test_a_number_that_was_never_sent_is_refused(resumable: ResumableGenerations) -> None:
    script = Script("a", "b")
    with pytest.raises(GenerationLostError):  # nobody knows the text that the caller has seen
        await read(resumable, script, after=1)
    assert script.num_runs == 0
    await read(resumable, script, most=1)
    with pytest.raises(FieldInvalidError) as refused:
        await read(resumable, script, after=2)
    assert refused.value.field == "resume_after"


@pytest.mark.parametrize("refusal", [NoSessionError(), ReplicaLostError(), ValueError("unforeseen")])
async def test_what_was_refused_before_any_text_begins_anew(
    resumable: ResumableGenerations, refusal: Exception
) -> None:
    script = Script("a")
    script.refusal = refusal
    kinds = set()
    for result in await asyncio.gather(*(read(resumable, script) for _ in range(5)), return_exceptions=True):
        kinds.add(getattr(result, "reason", ""))
    assert kinds == {getattr(refusal, "reason", "INTERNAL")}
    script.refusal = None
    assert text_of(await read(resumable, script)) == "a"
    assert script.num_runs == 2


async def test_what_nobody_comes_back_to_is_ended(database: Database, streams: SessionStreams) -> None:
    resumable, script = impatient(database, streams, absence=0.05), Script("a", "b")
    await read(resumable, script, most=1)
    await asyncio.wait_for(script.hold.wait(), 60)
    seen = await read(resumable, script)
    assert [event for _, event in seen] == [Delta("a", 1), ENDS[StopReason.CANCELLED]]
    assert script.stopped is StopReason.CANCELLED
    await resumable.close()


async def test_what_one_of_several_is_still_attached_to_goes_on(database: Database, streams: SessionStreams) -> None:
    resumable, script = impatient(database, streams, absence=0.0), Script("a", "b")
    staying = asyncio.create_task(read(resumable, script))
    await read(resumable, script, most=1)
    await asyncio.sleep(0.05)
    assert script.stopped is None
    script.hold.set()
    assert text_of(await staying) == "ab"
    await resumable.close()


async def test_a_cancelled_one_ends_for_all_who_read_it(resumable: ResumableGenerations) -> None:
    script = Script("a", "b")
    assert not resumable.cancel("first", "r1")
    readers = [asyncio.create_task(read(resumable, script)) for _ in range(3)]
    await read(resumable, script, most=1)
    assert not resumable.cancel("second", "r1")
    assert resumable.cancel("first", "r1")
    assert {(await reader)[-1][1] for reader in readers} == {ENDS[StopReason.CANCELLED]}
    assert not resumable.cancel("first", "r1")


async def test_a_drain_ends_what_nobody_reads_and_waits_for_the_readers(
    resumable: ResumableGenerations, streams: SessionStreams
) -> None:
    left, script = Script("a", "b"), Script("a", "b")
    await read(resumable, left, most=1, of=key("left"))
    reader = asyncio.create_task(read(resumable, script))
    await asyncio.sleep(0)
    resumable.drain()
    assert left.hold.is_set()
    drained = asyncio.create_task(streams.drain(30))
    await asyncio.sleep(0.02)
    assert not drained.done()
    script.hold.set()
    assert text_of(await reader) == "ab"
    await asyncio.wait_for(drained, 60)


@pytest.mark.parametrize("is_early", [False, True])
async def test_a_stop_of_all_cuts_a_drain_short_though_a_reader_takes_nothing(
    resumable: ResumableGenerations, streams: SessionStreams, monkeypatch: pytest.MonkeyPatch, is_early: bool
) -> None:
    monkeypatch.setattr(session_streams, "LAST_WORDS_SECONDS", 0.1)
    script = Script("a", "b")
    with await resumable.attach(KEY, 0, script) as recording:
        await anext(recording.read(0))
        if is_early:
            streams.stop_all(StopReason.DRAINING)
        drained = asyncio.create_task(streams.drain(3_600))
        await asyncio.sleep(0.02)
        if not is_early:
            streams.stop_all(StopReason.DRAINING)
        await asyncio.wait_for(drained, 60)


async def test_all_may_be_stopped_again_at_any_moment_of_a_drain_and_after_it(
    streams: SessionStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_streams, "LAST_WORDS_SECONDS", 0.1)
    with streams.reading():
        drained = asyncio.create_task(streams.drain(3_600))
        for _ in range(20):
            await asyncio.sleep(0)
            streams.stop_all(StopReason.DRAINING)
        await asyncio.wait_for(drained, 60)
    streams.stop_all(StopReason.DRAINING)


async def test_all_may_be_stopped_after_a_drain_of_nothing(streams: SessionStreams) -> None:
    await streams.drain(3_600)
    streams.stop_all(StopReason.DRAINING)


async def test_closing_ends_what_still_runs_and_cuts_what_does_not_end(
    resumable: ResumableGenerations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 2.0)  # a slow machine needs some for the one that ends
    script, stuck = Script("a", "b"), Script("a", "b")
    stuck.hold.set = lambda: None  # type: ignore[method-assign]
    readers = []
    for one, of in ((script, key()), (stuck, key("stuck"))):
        await read(resumable, one, most=1, of=of)
        readers.append(asyncio.create_task(read(resumable, one, of=of)))
    await asyncio.sleep(0)
    await resumable.close()
    assert (await readers[0])[-1][1] == ENDS[StopReason.DRAINING]
    with pytest.raises(DrainingError):
        await readers[1]


async def test_text_that_nobody_reads_is_bounded(resumable: ResumableGenerations) -> None:
    script = Script("a", *["x" * (1 << 18)] * 6)
    await read(resumable, script, most=1)
    script.hold.set()
    seen = await read(resumable, script, after=1)
    assert isinstance(seen[-1][1], End)
    assert isinstance(seen[-1][1].error, ReaderTooSlowError)
    assert len(text_of(seen)) == 5 << 18
    assert script.stopped is StopReason.READER_TOO_SLOW


async def test_what_made_an_answer_is_let_go_at_its_end_while_its_text_is_kept(resumable: ResumableGenerations) -> None:
    is_let_go = asyncio.Event()

    class Prompted(Script):
        async def __call__(self, running: RunningStream) -> AsyncGenerator[Event]:
            prompt = Script()  # stands for its tokens
            weakref.finalize(prompt, is_let_go.set)
            async with aclosing(super().__call__(running)) as events:
                async for event in events:
                    running.on_stop(lambda: prompt)
                    yield event

    script = Prompted("a")
    await read(resumable, script)
    async with asyncio.timeout(60):
        await is_let_go.wait()
    assert text_of(await read(resumable, script)) == "a"
    assert script.num_runs == 1


async def test_of_too_many_that_ended_the_oldest_go_first(database: Database, streams: SessionStreams) -> None:
    resumable, script = impatient(database, streams, max_kept_bytes=10_000), Script("x" * 1_000)
    for number in range(6):
        await read(resumable, script, of=key(f"r{number}"))
    with pytest.raises(GenerationEndedError):
        await read(resumable, script, of=key("r0"))
    assert text_of(await read(resumable, script, of=key("r5"))) == "x" * 1_000
    assert script.num_runs == 6
    await resumable.close()


async def test_without_a_store_nothing_begins_and_an_end_waits_for_it(
    resumable: ResumableGenerations, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailableError

    script = Script("a", "b")
    with monkeypatch.context() as patch:
        patch.setattr(database, "write", away)
        with pytest.raises(StoreUnavailableError):
            await read(resumable, script)
    await read(resumable, script, most=1)
    with monkeypatch.context() as patch:
        patch.setattr(database, "write", away)
        script.hold.set()
        assert text_of(await read(resumable, script)) == "ab"
        await asyncio.sleep(0.01)
    await resumable.close()
    with pytest.raises(GenerationEndedError):
        await read(resumable, script)
