"""Callers that read slowly, or not at all: they hold no slot, little memory, and nobody else up."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fault.baseline import Baseline, gauges, wait_for
from tests.fault.callers import Callers, callers_of, read
from tests.fault.figures import counts, times
from tests.fault.long_answers import long_server_process
from tests.fault.test_vanishing_clients import http_stream
from tests.keys import make_key
from tests.scale import IS_FULL, count
from tests.server_process import ServerProcess

pytestmark = pytest.mark.fault

NUM_READERS = 32
# A window that a few dozen messages fill; with the usual 64 KiB it takes minutes of 5 ms a token.
SMALL_WINDOW = (("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))
PATIENCE_SECONDS = count(12, full=60)  # longer than a machine stands still, for one reads on


NUM_SAMPLES = count(5, full=100)
NUM_TOKENS = count(250, full=5_000)  # of each reader: they are made for as long as the samples take


@pytest.fixture
def roomy_server(tmp_path: Path) -> Iterator[tuple[ServerProcess, str]]:
    """A server with a slot for everybody, and the key of another account."""
    data = tmp_path / "data"
    data.mkdir()
    neighbours_key = make_key(data, "neighbour")
    with long_server_process(
        tmp_path, "--reader-patience", "600", "--stop-grace", "1", slots=NUM_READERS + 2
    ) as server:
        yield server, neighbours_key


async def test_readers_that_stopped_hold_no_slot_once_their_answers_are_made(
    roomy_server: tuple[ServerProcess, str], note: Callable[..., None]
) -> None:
    """And while these are made, they hold nobody up more than those who read."""
    server, neighbours_key = roomy_server
    async with Callers(server.grpc, neighbours_key) as others, callers_of(server) as readers:
        await others.start()
        await others.generate(5)
        alone = await _samples(others)
        reading = [asyncio.create_task(readers.generate(NUM_TOKENS)) for _ in range(NUM_READERS)]
        beside_reading = await _samples(others)
        answers = await asyncio.gather(*reading)
        async with Callers(server.grpc, server.api_key, SMALL_WINDOW) as stopped:
            calls = [stopped.call(NUM_TOKENS, seconds=None) for _ in range(NUM_READERS)]
            beside_stopped = await _samples(others)
            await asyncio.to_thread(
                wait_for, server, {"tidemill_leased_places": 0, "tidemill_replica_slots_used": 0}, 240
            )
            beside_made = await _samples(others)
            buffered = gauges(server)["tidemill_buffered_bytes"]
            assert 0 < buffered < NUM_READERS << 20  # the answers are here, and nobody has read them
            answers += await asyncio.gather(*(read(call) for call in calls))
    assert {answer.ending for answer in answers} == {"LENGTH"}  # whoever reads on in time gets all of it
    assert all(answer.num_tokens == answer.end.usage.completion_tokens for answer in answers if answer.end)
    note(
        others_alone=times(alone),
        others_beside_as_many_that_read=times(beside_reading),
        others_beside_the_stopped=times(beside_stopped),
        others_beside_the_stopped_once_all_is_made=times(beside_made),
        buffered=f"{buffered / NUM_READERS:,.0f} bytes a reader",
    )


async def test_readers_that_stopped_are_cut_after_the_patience_and_told_why(
    tmp_path: Path, note: Callable[..., None]
) -> None:
    with long_server_process(tmp_path, "--reader-patience", str(PATIENCE_SECONDS), slots=NUM_READERS + 2) as server:
        async with callers_of(server) as others:
            await others.generate(5)
            baseline = Baseline.of(server)
            cut = await _stop_reading(server)
            back = await asyncio.to_thread(baseline.wait_until_back)
            assert (await others.generate(5)).ending == "LENGTH"
    assert set(cut.endings) == {"RESOURCE_EXHAUSTED READER_TOO_SLOW"}, counts(cut.endings)
    assert cut.most_buffered < NUM_READERS << 20
    note(
        endings=counts(cut.endings),
        cut_after=f"{cut.seconds:.2f} s with a patience of {PATIENCE_SECONDS} s",
        most_buffered=f"{cut.most_buffered / NUM_READERS:,.0f} bytes a reader",
        back_at_the_baseline=f"{back:.2f} s",
    )


@dataclass(frozen=True)
class Cut:
    """What became of readers that stopped."""

    seconds: float
    most_buffered: float
    endings: list[str]


async def _stop_reading(server: ServerProcess) -> Cut:
    """Begin streams and read nothing of them until they are cut; then read what there is."""
    async with Callers(server.grpc, server.api_key, SMALL_WINDOW) as callers:
        calls = [callers.call(50_000, seconds=None) for _ in range(NUM_READERS)]
        slow = asyncio.create_task(_read_slowly(callers))
        began, num_before = time.monotonic(), gauges(server)["tidemill_generations_total"]
        most_buffered = 0.0
        while (held := gauges(server))["tidemill_generations_total"] < num_before + NUM_READERS:
            assert time.monotonic() - began < PATIENCE_SECONDS + 120, held
            most_buffered = max(most_buffered, held["tidemill_buffered_bytes"])
            await asyncio.sleep(0.2)
        seconds = time.monotonic() - began
        assert not slow.done()  # one that reads on, however slowly, is not cut
        slow.cancel()
        await asyncio.wait({slow})
        answers = await asyncio.gather(*(read(call) for call in calls))
    return Cut(seconds, most_buffered, [answer.ending for answer in answers])


@pytest.mark.skipif(not IS_FULL, reason="20 s of waiting")
async def test_readers_that_stopped_over_http_are_cut_by_the_systems_timer(
    long_server: ServerProcess, note: Callable[..., None]
) -> None:
    async with callers_of(long_server) as callers:
        await callers.generate(5)
        baseline = Baseline.of(long_server)
        connections = [http_stream(long_server, receive_buffer_bytes=4_096) for _ in range(8)]
        began = time.monotonic()
        await asyncio.to_thread(wait_for, long_server, {"tidemill_leased_places": 0}, 90)
        cut = time.monotonic() - began
        for connection in connections:
            connection.close()
        await asyncio.to_thread(baseline.wait_until_back)
    note(cut_after=f"{cut:.2f} s")


async def _samples(callers: Callers) -> list[float]:
    """How long each of some short answers took, one after the other."""
    seconds = []
    for _ in range(NUM_SAMPLES):
        began = time.monotonic()
        assert (await callers.generate(20)).ending == "LENGTH"
        seconds.append(time.monotonic() - began)
    return seconds


async def _read_slowly(callers: Callers) -> None:
    call = callers.call(90_000, seconds=None)
    try:
        async for response in call:
            assert not response.HasField("end"), response
            await asyncio.sleep(0.05)
    finally:
        call.cancel()
