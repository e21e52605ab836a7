"""One generation as its reader sees it."""

import asyncio

import pytest

from tidemill.engine.v1 import engine_pb2 as pb
from tidemill_services.domain.errors import QueueFullError, ReaderTooSlowError, ReplicaLostError
from tidemill_services.engine_client import Backlog, EngineFinish, EngineOutput, EngineStream, ReplicaRejectedError
from tidemill_services.engine_client.stream import MAX_BUFFERED_BYTES


class Opened:
    """A stream, and what it told its client."""

    def __init__(self) -> None:
        self.aborted: list[int] = []
        self.forgotten: list[int] = []
        self.backlog = Backlog()
        self.stream = EngineStream(4, self.aborted.append, self.forgotten.append, self.backlog)

    def put(self, text: str = "", *token_ids: int, **fields: object) -> None:
        self.stream.put(pb.SequenceOutput(sequence_id=4, text=text, token_ids=token_ids, **fields))  # type: ignore[arg-type]

    def finish(self, text: str = "", *token_ids: int) -> None:
        self.put(text, *token_ids, finish_reason=pb.FINISH_REASON_STOP, num_prompt_tokens=3, num_completion_tokens=9)


async def test_a_reader_that_keeps_up_gets_each_output_by_itself() -> None:
    opened = Opened()
    for text in ("a", "b"):
        reading = asyncio.ensure_future(anext(opened.stream))
        await asyncio.sleep(0)
        opened.put(text, 1)
        assert await reading == EngineOutput(text, 1, (1,))


async def test_what_a_slow_reader_left_comes_as_one_output_with_the_end_in_it() -> None:
    opened = Opened()
    opened.put("ti", 1)
    opened.put("", 2)
    opened.put("de", 3, 4)
    opened.finish("!", 5)
    outputs = [output async for output in opened.stream]
    assert outputs == [EngineOutput("tide!", 5, (1, 2, 3, 4, 5), EngineFinish.STOP, "", 3, 9)]
    assert opened.forgotten == [4]
    assert not opened.aborted


async def test_an_end_without_text_is_an_output_of_its_own() -> None:
    opened = Opened()
    opened.put("a", 1)
    assert await anext(opened.stream) == EngineOutput("a", 1, (1,))
    opened.put(finish_reason=pb.FINISH_REASON_ERROR, error="The run failed.")
    last = await anext(opened.stream)
    assert (last.text, last.num_tokens, last.finish_reason) == ("", 0, EngineFinish.ERROR)
    assert last.error == "The run failed."
    with pytest.raises(StopAsyncIteration):
        await anext(opened.stream)


async def test_a_rejection_is_raised_and_nothing_ran() -> None:
    opened = Opened()
    opened.put(finish_reason=pb.FINISH_REASON_REJECTED)
    with pytest.raises(ReplicaRejectedError) as caught:
        await anext(opened.stream)
    assert isinstance(caught.value, QueueFullError)
    assert caught.value.retry_after_seconds == 1.0
    assert opened.forgotten == [4]


async def test_the_text_before_a_loss_is_read_first() -> None:
    opened = Opened()
    opened.put("so far", 1, 2)
    opened.stream.fail(ReplicaLostError("gone"))
    assert (await anext(opened.stream)).text == "so far"
    with pytest.raises(ReplicaLostError, match="gone"):
        await anext(opened.stream)
    with pytest.raises(StopAsyncIteration):
        await anext(opened.stream)


async def test_a_loss_wakes_a_waiting_reader() -> None:
    opened = Opened()
    reading = asyncio.ensure_future(anext(opened.stream))
    await asyncio.sleep(0)
    opened.stream.fail(ReplicaLostError("gone"))
    with pytest.raises(ReplicaLostError):
        await reading


async def test_a_loss_after_the_end_changes_nothing() -> None:
    opened = Opened()
    opened.finish("done", 1)
    opened.stream.fail(ReplicaLostError("gone"))
    assert [output.text async for output in opened.stream] == ["done"]


async def test_a_reader_that_stops_is_cut_at_one_mebibyte_and_keeps_the_text_until_there() -> None:
    opened = Opened()
    piece = "ü" * 50_000  # 100,000 bytes
    num_put = 0
    while not opened.aborted:
        opened.put(piece, 1)
        num_put += 1
    assert num_put == MAX_BUFFERED_BYTES // 100_000 + 1
    assert opened.aborted == opened.forgotten == [4]
    assert (await anext(opened.stream)).text == piece * num_put
    with pytest.raises(ReaderTooSlowError):
        await anext(opened.stream)


async def test_what_was_read_does_not_count_as_waiting() -> None:
    opened = Opened()
    for _ in range(30):
        opened.put("x" * 100_000, 1)
        assert len((await anext(opened.stream)).text) == 100_000
    assert not opened.aborted


async def test_closing_aborts_forgets_and_ends_the_reading() -> None:
    opened = Opened()
    opened.put("unread", 1)
    opened.stream.close()
    opened.stream.close()
    assert opened.aborted == opened.forgotten == [4]
    with pytest.raises(StopAsyncIteration):
        await anext(opened.stream)


async def test_closing_what_ended_aborts_nothing() -> None:
    opened = Opened()
    opened.finish("done", 1)
    opened.stream.close()
    opened.stream.abort()
    assert not opened.aborted


async def test_closing_wakes_a_waiting_reader() -> None:
    opened = Opened()
    reading = asyncio.ensure_future(anext(opened.stream))
    await asyncio.sleep(0)
    opened.stream.close()
    with pytest.raises(StopAsyncIteration):
        await reading


async def test_abort_leaves_the_stream_open_for_its_end() -> None:
    opened = Opened()
    opened.put("a", 1)
    opened.stream.abort()
    assert opened.aborted == [4]
    opened.put("b", 2, finish_reason=pb.FINISH_REASON_CANCELLED, num_completion_tokens=2)
    last = await anext(opened.stream)
    assert (last.text, last.finish_reason, last.num_completion_tokens) == ("ab", EngineFinish.CANCELLED, 2)


async def test_a_reader_that_gives_up_waiting_loses_nothing() -> None:
    opened = Opened()
    reading = asyncio.ensure_future(anext(opened.stream))
    await asyncio.sleep(0)
    opened.put("kept", 1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert (await anext(opened.stream)).text == "kept"


async def test_what_waits_for_its_reader_is_counted_until_it_is_read_or_thrown_away() -> None:
    opened = Opened()
    opened.put("ebb", 1, 2, 3)
    opened.put("und", 4)
    assert opened.backlog.num_bytes == len("ebbund") + 4 * 4
    await anext(opened.stream)
    assert opened.backlog.num_bytes == 0
    opened.put("flow", 5)
    opened.stream.close()
    assert opened.backlog.num_bytes == 0


async def test_text_that_is_forwarded_wakes_nobody_and_the_only_output_has_what_came_with_the_end() -> None:
    opened = Opened()
    taken: list[tuple[str, int]] = []
    opened.stream.forward(lambda text, num_tokens, _: taken.append((text, num_tokens)))
    reading = asyncio.ensure_future(anext(opened.stream))
    await asyncio.sleep(0)
    opened.put("ti", 1)
    opened.put("", 2)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not reading.done()
    opened.finish("de", 3, 4)
    assert taken == [("ti", 1), ("", 1)]
    assert await reading == EngineOutput("de", 2, (3, 4), EngineFinish.STOP, "", 3, 9)


async def test_forwarded_text_stays_when_the_replica_is_lost() -> None:
    opened = Opened()
    taken: list[str] = []
    opened.stream.forward(lambda text, *_: taken.append(text))
    opened.put("a", 1)
    opened.stream.fail(ReplicaLostError())
    with pytest.raises(ReplicaLostError):
        await anext(opened.stream)
    assert taken == ["a"]
