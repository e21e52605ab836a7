"""What runs beside each other in a control process, and what becomes of it."""

import asyncio

import pytest

from tidemill_services.running_parts import RunningParts


async def test_parts_are_stopped_in_the_reverse_order_of_their_start() -> None:
    stopped: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(name)

    async with RunningParts(pytest.fail) as parts:
        for name in ("first", "second", "third"):
            parts.keep_running(work(name), name)
        await asyncio.sleep(0)
    assert stopped == ["third", "second", "first"]


async def test_a_part_that_breaks_is_told_of_by_its_name_and_the_others_go_on() -> None:
    told: asyncio.Queue[str] = asyncio.Queue()

    async def breaks() -> None:
        raise RuntimeError("no more room")

    async with RunningParts(told.put_nowait) as parts:
        parts.keep_running(asyncio.Event().wait(), "waiter")
        parts.keep_running(breaks(), "keeper")
        assert await told.get() == "keeper broke: no more room"
        assert told.empty()
    assert told.empty(), "a part that was stopped did not break"
