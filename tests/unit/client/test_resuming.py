"""Streams whose connection is cut: the client goes on by itself, or says what was lost."""

import asyncio
import threading
import time

import grpc
import pytest

import tidemill
from tests.unit.client.mill import KEY, Cut, Hold, Last, Mill, Refusal, broken_end, keep_alive
from tidemill import AsyncClient, Client
from tidemill.plans import following
from tidemill.plans.following import LONGEST_ABSENCE
from tidemill.v1 import inference_pb2

LOST = Refusal(grpc.StatusCode.ALREADY_EXISTS, "GENERATION_LOST")


@pytest.fixture(autouse=True)
def _nothing_to_pay(mill: Mill) -> None:
    mill.needs_session = False


def until(mill: Mill, method: str, num_requests: int) -> None:
    end = time.monotonic() + 60
    while len(mill.requests[method]) < num_requests:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_stream_that_is_cut_goes_on_where_it_was(client: Client, mill: Mill) -> None:
    mill.script("cut", "some", Cut(), " more", keep_alive(), " text", Cut(), Cut(), " and the end")
    stream = client.complete_prompt("cut")
    assert list(stream) == ["some", " more", " text", " and the end"]
    assert (stream.finish_reason, stream.usage is not None) == ("stop", True)
    requests = mill.requests["Generate"]
    assert [request.resume_after for request in requests] == [0, 1, 3, 3]
    assert len({request.request_id for request in requests}) == 1
    assert mill.requests["CancelGeneration"] == []


def test_the_last_text_may_come_with_the_end(client: Client, mill: Mill) -> None:
    mill.script("tail", "some", Cut(), Last(" more"))
    stream = client.complete_prompt("tail")
    assert list(stream) == ["some", " more"]
    assert (stream.text, stream.finish_reason) == ("some more", "stop")
    assert client.complete_prompt("tail", stream=False) == "some more"


async def test_it_does_so_with_asyncio(async_client: AsyncClient, mill: Mill) -> None:
    mill.script("cut", keep_alive(), Cut(), "some", Cut(), " more")
    stream = await async_client.complete_prompt("cut")
    assert [text async for text in stream] == ["some", " more"]
    assert [request.resume_after for request in mill.requests["Generate"]] == [0, 0, 1]


def test_a_server_that_comes_back_says_draining_meanwhile(client: Client, mill: Mill) -> None:
    mill.script("cut", "some", Cut(), " more")
    stream = client.complete_prompt("cut")
    assert next(stream) == "some"
    mill.fail_next("Generate", Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING"))
    assert list(stream) == [" more"]


def test_what_a_restarted_server_lost_is_asked_anew_when_nothing_was_shown(client: Client, mill: Mill) -> None:
    mill.script("wake", keep_alive(), Cut(), "some text")
    refusals = [LOST]

    def restart(_: tidemill.Progress) -> None:
        while refusals:
            mill.fail_next("Generate", refusals.pop())

    assert list(client.complete_prompt("wake", on_progress=restart)) == ["some text"]
    first, second, third = mill.requests["Generate"]
    assert first.request_id == second.request_id != third.request_id
    assert third.resume_after == 0


def test_what_a_restarted_server_lost_after_text_is_an_error_with_that_text(client: Client, mill: Mill) -> None:
    mill.script("cut", "some", Cut(), " more")
    stream = client.complete_prompt("cut")
    assert next(stream) == "some"
    mill.fail_next("Generate", LOST)
    with pytest.raises(tidemill.GenerationLostError) as caught:
        next(stream)
    assert caught.value.partial_text == "some"
    assert caught.value.request_id == mill.requests["Generate"][0].request_id
    assert len(mill.requests["Generate"]) == 2


def test_a_generation_that_ended_meanwhile_says_what_it_used(client: Client, mill: Mill) -> None:
    usage = inference_pb2.GenerationEnd().usage
    usage.prompt_tokens, usage.completion_tokens = 3, 4
    mill.fail_next("Generate", Refusal(grpc.StatusCode.ALREADY_EXISTS, "GENERATION_ENDED", usage=usage))
    with pytest.raises(tidemill.GenerationEndedError) as caught:
        list(client.complete_prompt("late"))
    assert caught.value.usage is not None
    assert (caught.value.usage.prompt_tokens, caught.value.usage.completion_tokens) == (3, 4)


def test_a_connection_that_stays_away_is_an_error_with_the_text(
    client: Client, mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LONGEST_ABSENCE", 0.3)
    mill.script("cut", "some", *(Cut() for _ in range(50)))
    stream = client.complete_prompt("cut")
    assert next(stream) == "some"
    with pytest.raises(tidemill.UnreachableError) as caught:
        next(stream)
    assert caught.value.partial_text == "some"
    assert 3 <= len(mill.requests["Generate"]) <= 10
    until(mill, "CancelGeneration", 1)


def test_the_timeout_bounds_all_tries(client: Client, mill: Mill) -> None:
    mill.script("cut", "some", *(Cut() for _ in range(50)))
    started = time.monotonic()
    with pytest.raises(tidemill.TidemillError) as caught:
        list(client.complete_prompt("cut", timeout=1))
    assert isinstance(caught.value, tidemill.UnreachableError | tidemill.DeadlineExceededError)
    assert time.monotonic() - started < LONGEST_ABSENCE


def test_an_end_that_says_unavailable_is_an_end(client: Client, mill: Mill) -> None:
    mill.script("drained", "some", broken_end("DRAINING", "The server stops."))
    with pytest.raises(tidemill.DrainingError) as caught:
        list(client.complete_prompt("drained"))
    assert caught.value.partial_text == "some"
    assert len(mill.requests["Generate"]) == 1


def test_a_generation_that_somebody_else_cancelled_is_no_whole_answer(client: Client, mill: Mill) -> None:
    mill.script("cancelled", "some", inference_pb2.GenerationEnd(finish_reason="FINISH_REASON_CANCELLED"))
    with pytest.raises(tidemill.CallCancelledError) as caught:
        list(client.complete_prompt("cancelled"))
    assert caught.value.partial_text == "some"


def test_closing_a_stream_while_it_is_away_ends_it(client: Client, mill: Mill) -> None:
    mill.script("cut", "some", *(Cut() for _ in range(50)))
    stream = client.complete_prompt("cut")
    assert next(stream) == "some"
    closer = threading.Timer(0.2, stream.close)
    closer.start()
    assert list(stream) == []
    closer.join()
    assert stream.finish_reason == "cancelled"
    until(mill, "CancelGeneration", 1)


@pytest.mark.parametrize("how", ["close", "with", "break", "client"])
def test_who_breaks_off_a_stream_ends_its_generation(mill: Mill, how: str) -> None:
    hold = Hold()
    mill.script("long", "some", hold, " more")
    with Client(KEY, target=mill.target) as client:
        if how == "break":
            for _ in client.complete_prompt("long"):
                break
        else:
            stream = client.complete_prompt("long")
            assert next(stream) == "some"
            if how == "close":
                stream.close()
                stream.close()
            elif how == "with":
                with stream:
                    pass
    until(mill, "CancelGeneration", 1)
    assert mill.requests["CancelGeneration"][0].request_id == mill.requests["Generate"][0].request_id
    assert len(mill.requests["CancelGeneration"]) == 1


def test_a_stream_that_was_read_too_slowly_ends_its_generation(client: Client, mill: Mill) -> None:
    mill.script("long", "some", Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "READER_TOO_SLOW"))
    with pytest.raises(tidemill.ReaderTooSlowError) as error:
        list(client.complete_prompt("long"))
    assert error.value.partial_text == "some"
    until(mill, "CancelGeneration", 1)


async def test_who_leaves_with_asyncio_ends_its_generation(mill: Mill) -> None:
    hold = Hold()
    mill.script("long", "some", hold, " more")
    async with AsyncClient(KEY, target=mill.target) as client:
        task = asyncio.create_task(client.complete_prompt("long", stream=False))
        assert await asyncio.to_thread(hold.reached.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        stream = await client.complete_prompt("long")
        assert await anext(stream) == "some"
    await asyncio.to_thread(until, mill, "CancelGeneration", 2)


def test_an_answer_that_was_read_to_its_end_or_refused_says_no_farewell(client: Client, mill: Mill) -> None:
    with client.complete_prompt("hello") as stream:
        assert list(stream)
    for method in ("Generate", "Complete"):
        mill.fail_next(method, Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"))
        with pytest.raises(tidemill.QueueFullError):
            list(client.complete_prompt("hello", stream=method == "Generate"))
    assert client.complete_prompt("hello", stream=False)
    client.close()
    assert mill.requests["CancelGeneration"] == []


def test_closing_a_client_of_a_dead_server_does_not_hang(mill: Mill) -> None:
    hold = Hold()
    mill.script("long", "some", hold, " more")
    client = Client(KEY, target=mill.target)
    stream = client.complete_prompt("long")
    assert next(stream) == "some"
    mill.stop()
    started = time.monotonic()
    stream.close()
    client.close()
    assert time.monotonic() - started < 50
